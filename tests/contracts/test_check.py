"""A run judged afterwards, from its files alone."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lightning_elche.contracts.checking.check import check_run, exit_code
from lightning_elche.contracts.evidence import digests as evidence_digests
from lightning_elche.contracts.model import Contract, Gate, Suppression
from lightning_elche.contracts.runfolder.rundir import RunUnreadable
from lightning_elche.contracts.verdicts import Report, Severity, Verdict
from lightning_elche.exceptions import ContractError
from tests.contracts.runs import Attempt, Epoch, Run, Step, digest, edit, train_healthily

DEFAULT = Contract.default()
OTHER_ROW = {"regime": "finetune", "lr_max": 1e-5, "warmup_steps": 100, "target_val_loss": 2.2}
SYNTHETIC = {"synthetic": True, "fast_dev_run": False, "overfit_batches": 0}
METADATA = "ckpt/epoch-001.metadata.json"


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    return train_healthily(tmp_path / "run")


def failed(report: Report) -> list[str]:
    """Return the last part of the ids of the gates that fail."""
    return [one.gate[-3:] for one in report.gates if one.verdict is Verdict.FAIL]


def unknown(report: Report) -> list[str]:
    return [one.gate[-3:] for one in report.gates if one.verdict is Verdict.INDETERMINATE]


def rules_of(report: Report, severity: Severity) -> set[str]:
    return {one.rule for one in report.all_findings if one.severity is severity}


def test_healthy_run_passes_every_gate(run_dir: Path) -> None:
    """All declared gates that one run can tell of pass, and nothing is found."""
    report = check_run(run_dir, digest=digest)
    assert [one.gate for one in report.gates if one.verdict is Verdict.PASS] == [
        one.id for one in DEFAULT.gates if one.id != "GATE-TRAIN-006"
    ]
    assert (report.all_findings, exit_code(report)) == ((), 0)


def test_report_tells_what_it_is_based_on(run_dir: Path) -> None:
    """A reader sees whose contract it was, and how far the run came."""
    facts = check_run(run_dir, digest=digest).facts
    assert facts["contract"] == "C-GATE-TRAIN 1.0.0, the run's own copy"
    assert (facts["steps"], facts["epochs"], facts["status"]) == (6, 3, "OK")
    assert facts["best_val_loss"] == "2.1 at epoch 2"


def test_digests_are_not_taken_on_trust(run_dir: Path) -> None:
    """Whoever cannot recompute them does not know."""
    assert unknown(check_run(run_dir)) == ["002"]
    assert unknown(check_run(run_dir, digest=lambda *_: None)) == ["002"]


def test_one_run_alone_does_not_tell_whether_it_can_be_repeated(run_dir: Path) -> None:
    """Asked for that gate the report says so, and else it is no part of it."""
    report = check_run(run_dir, gates=["GATE-TRAIN-006", "GATE-TRAIN-001"])
    assert [(one.gate[-3:], one.verdict.value) for one in report.gates] == [
        ("001", "PASS"),
        ("006", "INDETERMINATE"),
    ]


def test_gates_that_the_contract_lacks_are_not_declared(tmp_path: Path) -> None:
    """Nobody has asked for them, so that they are neither kept nor broken."""
    contract = replace(DEFAULT, gates=(Gate(id="GATE-TRAIN-001"), Gate(id="GATE-MY-001")))
    run_dir = train_healthily(tmp_path, contract)
    verdicts = {one.gate: one.verdict.value for one in check_run(run_dir, contract=contract).gates}
    assert verdicts.pop("GATE-TRAIN-001") == "PASS"
    assert verdicts.pop("GATE-MY-001") == "INDETERMINATE"
    assert (len(verdicts), set(verdicts.values())) == (10, {"NOT_DECLARED"})


@pytest.mark.parametrize(
    ("name", "changed", "gates"),
    [
        ("run.json", {"status": "ABORTED", "stop_reason": "DIVERGENCE"}, ["005"]),
        ("run.json", {"status": "ABORTED", "stop_reason": "boredom"}, ["001"]),
        ("run.json", {"status": "EARLY_STOP"}, ["004"]),
        ("run.json", {"steps": 7}, ["001"]),
        ("run.json", {"epochs_completed": 4}, ["002"]),
        ("run.json", {"epochs_completed": 2}, ["002"]),
        ("run.json", {"run_id": "another"}, ["002"]),
        ("run.json", {"artifact_failures": ["epoch 9"]}, ["002"]),
        ("run.json", {"hyperparameters": OTHER_ROW}, ["009"]),
        ("run.json", {"provenance": SYNTHETIC}, ["010"]),
        (METADATA, {"epoch": 2}, ["002"]),
        (METADATA, {"epoch": 1.0}, ["002"]),
        (METADATA, {"train_loss": "2.5"}, ["002"]),
        (METADATA, {"train_ppl": 12.0}, ["002"]),
        (METADATA, {"train_ppl": None}, ["002"]),
        (METADATA, {"val_loss": 2.6}, ["002"]),  # no longer fits its perplexity
        (METADATA, {"val_loss": float("nan")}, ["002", "005", "007"]),
        (METADATA, {"val_loss": "NaN"}, ["002", "005", "007"]),
        (METADATA, {"val_loss": 6.1, "val_ppl": 445.857764}, ["005"]),
        (METADATA, {"optimizer_state_sha": "0" * 64}, ["002"]),
        (METADATA, {"optimizer_state_sha": "A" * 64}, ["002"]),
        (METADATA, {"optimizer_state_algo": "another"}, ["002"]),
        (METADATA, {"checkpoint_sha256": "0" * 64}, ["002"]),
        (METADATA, {"checkpoint_bytes": 1}, ["002"]),
        (METADATA, {"tokens_seen": 2048}, ["002"]),
        (METADATA, {"grad_norm_max": -1.5}, ["002"]),
        (METADATA, {"wall_seconds": -1.0}, ["002"]),
        (METADATA, {"run_id": "another"}, ["002"]),
    ],
)  # fmt: skip
def test_gate_fails_if_a_field_was_changed(
    run_dir: Path, name: str, changed: dict[str, Any], gates: list[str]
) -> None:
    """A field that contradicts another, or a rule, turns a verdict."""
    edit(run_dir / name, **changed)
    report = check_run(run_dir, digest=digest)
    assert failed(report) == gates
    assert exit_code(report) == 1


@pytest.mark.parametrize(
    ("changed", "rule"),
    [
        ({"train_loss": 2.6, "train_ppl": 13.463738}, "EV-TRAIN-LOSS"),
        ({"tokens_seen": 4200}, "EV-TOKENS-CLOCK"),
        ({"wall_seconds": 0.5}, "EV-WALL"),
        ({"val_loss": 0.2, "val_ppl": 1.22140276}, "EV-VAL-LOW"),
    ],
)
def test_field_is_suspicious_if_it_was_changed(
    run_dir: Path, changed: dict[str, Any], rule: str
) -> None:
    """What an honest run may also do is a warning, which `is_strict` turns into an error."""
    edit(run_dir / METADATA, **changed)
    report = check_run(run_dir, digest=digest)
    assert rule in rules_of(report, Severity.WARNING)
    assert exit_code(report, is_strict=True) == 1


def cut_line(path: Path) -> None:
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:-1]))


def flip_bit(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(bytes([content[0] ^ 1]) + content[1:])


@pytest.mark.parametrize(
    ("name", "change", "code"),
    [
        ("train.jsonl", Path.unlink, 4),
        ("train.jsonl", cut_line, 1),
        ("train.jsonl", flip_bit, 1),
        ("events.jsonl", Path.unlink, 1),
        ("ckpt/epoch-001.ckpt", Path.unlink, 1),
        ("ckpt/epoch-001.ckpt", flip_bit, 1),
        (METADATA, Path.unlink, 1),
        (METADATA, flip_bit, 1),
    ],
)
def test_file_that_was_changed_is_noticed(
    run_dir: Path, name: str, change: Callable[[Path], None], code: int
) -> None:
    """A file that is missing or damaged does not pass."""
    change(run_dir / name)
    assert exit_code(check_run(run_dir, digest=digest)) == code


@pytest.mark.parametrize("name", ["run.json", "contract.yaml"])
def test_file_without_which_nothing_is_known_is_an_error(run_dir: Path, name: str) -> None:
    """A broken run record or copy of the contract is no reason to judge without it."""
    flip_bit(run_dir / name)
    with pytest.raises((RunUnreadable, ContractError)):
        check_run(run_dir, digest=digest)


def test_run_is_not_judged_without_a_contract(run_dir: Path) -> None:
    """There is no default: rules that a run was not trained under say nothing of it."""
    (run_dir / "contract.yaml").unlink()
    with pytest.raises(RunUnreadable, match=r"has no contract.yaml: name one with `--contract`"):
        check_run(run_dir, digest=digest)
    assert failed(check_run(run_dir, contract=DEFAULT, digest=digest)) == []


def test_copy_of_the_contract_that_was_changed_is_an_error(run_dir: Path) -> None:
    """A run that is judged by itself cannot make its rules milder afterwards."""
    path = run_dir / "contract.yaml"
    path.write_text(path.read_text().replace("patience_epochs: 2", "patience_epochs: 9"))
    report = check_run(run_dir, digest=digest)
    assert rules_of(report, Severity.ERROR) == {"EV-CONTRACT-DRIFT"}
    assert exit_code(report) == 1


@pytest.mark.parametrize("keeps_digest", [True, False])
def test_other_contract_is_a_warning(run_dir: Path, keeps_digest: bool) -> None:
    """To judge by rules of one's own is fine, but the report says so."""
    if not keeps_digest:
        edit(run_dir / "run.json", contract={"id": "C-GATE-TRAIN"})
    other = replace(DEFAULT, text=DEFAULT.text + b"# mine", path="mine.yaml")
    report = check_run(run_dir, contract=other, digest=digest)
    (finding,) = report.findings
    assert (finding.rule, finding.severity.value) == ("EV-CONTRACT-DRIFT", "warning")
    assert finding.message == "mine.yaml is not the contract of the run"


def test_suppressed_warning_is_not_reported(run_dir: Path) -> None:
    """A contract silences the warnings it names, and no errors."""
    edit(run_dir / METADATA, wall_seconds=0.5, train_ppl=1.0)
    muted = tuple(
        Suppression(rule=rule, until="9999-12-31", reason="") for rule in ("EV-WALL", "EV-PPL")
    )
    report = check_run(run_dir, contract=replace(DEFAULT, suppressions=muted), digest=digest)
    assert rules_of(report, Severity.WARNING) == set()
    assert "EV-PPL" in rules_of(report, Severity.ERROR)


def test_contradiction_is_an_error_without_a_gate_for_it(tmp_path: Path) -> None:
    """Forged evidence is reported although the contract does not ask for artifacts."""
    contract = replace(DEFAULT, gates=(Gate(id="GATE-TRAIN-001"),))
    run_dir = train_healthily(tmp_path, contract)
    edit(run_dir / METADATA, train_ppl=1.0)
    report = check_run(run_dir, contract=contract)
    assert [one.rule for one in report.findings] == ["EV-PPL"]
    assert (failed(report), exit_code(report)) == ([], 1)


def test_only_the_gates_asked_for_are_told(run_dir: Path) -> None:
    """What is wrong besides does not fail a check of one gate."""
    edit(run_dir / METADATA, train_ppl=1.0, wall_seconds=0.5)
    report = check_run(run_dir, gates=["GATE-TRAIN-001"])
    assert [one.gate for one in report.gates] == ["GATE-TRAIN-001"]
    assert (report.all_findings, exit_code(report)) == ((), 0)


def test_checkpoint_of_the_aborted_epoch_fails_divergence(tmp_path: Path) -> None:
    """Weights that broke the rule must not lie where the good ones are."""
    run_dir = tmp_path / "run"
    diverged = Attempt(epochs=(Epoch(val_loss=3.0), Epoch(val_loss=7.0)))
    Run(run_dir, DEFAULT).go(diverged)
    assert failed(check_run(run_dir, digest=digest)) == ["003", "005"]
    shutil.copy(run_dir / "ckpt/epoch-000.ckpt", run_dir / "ckpt/epoch-001.ckpt")
    report = check_run(run_dir, digest=digest)
    assert failed(report) == ["002", "003", "005"]
    assert "EV-CKPT-AFTER-ABORT" in rules_of(report, Severity.ERROR)


def test_abort_of_an_attempt_that_was_given_up_is_forgotten(tmp_path: Path) -> None:
    """A run that is resumed before the abort, and then is healthy, passes."""
    sick = Attempt(epochs=(Epoch(val_loss=3.0), Epoch(steps=(Step(changed={"lr": float("nan")}),))))
    healthy = Attempt(epochs=(Epoch(val_loss=2.5), Epoch(val_loss=2.1)), from_epoch=1)
    Run(tmp_path, DEFAULT).go(sick)
    assert failed(check_run(tmp_path, digest=digest)) == ["003", "007"]
    shutil.rmtree(tmp_path)
    Run(tmp_path, DEFAULT).go(sick, healthy)
    assert failed(check_run(tmp_path, digest=digest)) == []


def test_steps_are_given_up_by_an_attempt_that_made_none(tmp_path: Path) -> None:
    """A run that is resumed, and ends at once, is where it was when its checkpoint was saved."""
    run = Run(tmp_path, DEFAULT)
    lost = Epoch(steps=(Step(), Step(changed={"wall_ms": 9e9})), val_loss="none")
    run.go(Attempt(epochs=(Epoch(), lost), status="INTERRUPTED"), Attempt(epochs=(), from_epoch=1))
    report = check_run(tmp_path, digest=digest)
    assert (report.facts["steps"], report.gates[0].verdict.value) == (2, "PASS")
    assert "do not count: a later attempt began before them" in report.findings[0].message


def test_unknown_abort_fails(run_dir: Path) -> None:
    """An event that says that the run was aborted, for a reason nobody knows, is no small thing."""
    (run_dir / "events.jsonl").write_text('{"event": "ABORT", "abort": "BOREDOM"}\n')
    report = check_run(run_dir, digest=digest)
    assert failed(report) == ["001"]
    assert report.gates[0].findings[0].message == "an ABORT event names no abort that is known"


@pytest.mark.parametrize(("is_live", "gates"), [(True, []), (False, ["002"])])
def test_epoch_in_the_making_is_not_looked_at_live(
    run_dir: Path, is_live: bool, gates: list[str]
) -> None:
    """While a run goes on its last files may be there before it counts them."""
    edit(run_dir / "run.json", status="RUNNING", epochs_completed=2)
    (run_dir / METADATA.replace("001", "002")).unlink()
    report = check_run(run_dir, is_live=is_live, digest=digest)
    assert failed(report) == gates
    assert "003" in unknown(report)


def test_log_of_a_rank_that_is_missing_leaves_its_gates_open(tmp_path: Path) -> None:
    """A rank whose log is declared and gone may have seen anything."""
    run_dir = train_healthily(tmp_path, num_ranks=2)
    assert unknown(check_run(run_dir, digest=digest)) == []
    (run_dir / "train.rank1.jsonl").unlink()
    report = check_run(run_dir, digest=digest)
    assert unknown(report)[:3] == ["001", "007", "008"]
    assert report.gates[0].reason == "train.rank1.jsonl is missing"


def test_log_of_another_rank_is_judged(tmp_path: Path) -> None:
    """What is wrong on any rank is wrong."""
    run_dir = train_healthily(tmp_path, num_ranks=2)
    path = run_dir / "train.rank1.jsonl"
    path.write_text(path.read_text().replace('"gpu_util_pct":0', '"gpu_util_pct":101', 1))
    assert failed(check_run(run_dir, digest=digest)) == ["008"]


def test_run_without_a_record_is_judged_by_what_its_reader_knows(run_dir: Path) -> None:
    """Logs and epochs are judged, and what only a run can tell of itself is open."""
    (run_dir / "run.json").unlink()
    report = check_run(run_dir, regime="finetune", device="cpu", digest=digest)
    assert failed(report) == []
    assert unknown(report) == ["002", "009", "010"]


def test_limit_of_the_first_epoch_is_open_if_nobody_tells_the_regime(run_dir: Path) -> None:
    """Without it there is no saying what is too much."""
    (run_dir / "run.json").unlink()
    assert "005" in unknown(check_run(run_dir, digest=digest))


@pytest.mark.parametrize("told", [{"regime": "finetune"}, {"vocab_size": 9}, {"device": "cpu"}])
def test_facts_are_refused_if_the_run_tells_them(run_dir: Path, told: dict[str, Any]) -> None:
    """Two answers to one question are one too many."""
    with pytest.raises(ValueError, match=f"`{next(iter(told))}` must not be given"):
        check_run(run_dir, **told)


def test_disk_that_was_full_fails_the_artifacts_only(tmp_path: Path) -> None:
    """What an epoch has come to is told by the event, so that the other gates can be judged."""
    epochs = (Epoch(val_loss=3.0, fault="metadata"), Epoch(val_loss=2.5), Epoch(val_loss=2.1))
    Run(tmp_path, DEFAULT).go(Attempt(epochs=epochs))
    report = check_run(tmp_path, digest=digest)
    assert (failed(report), unknown(report)) == (["002"], [])


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    name=st.sampled_from(["run.json", "train.jsonl", METADATA, "events.jsonl", "contract.yaml"]),
    place=st.floats(0.0, 1.0, exclude_max=True),
    insert=st.binary(max_size=3) | st.sampled_from([b"\n", b'"', b"NaN", b"null", b"{", b"-"]),
    removed=st.integers(0, 3),
)
def test_damaged_file_is_judged_or_refused(
    run_dir: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    place: float,
    insert: bytes,
    removed: int,
) -> None:
    """Whatever bytes are in a file, the checker ends with a report, or says what it is no more."""
    monkeypatch.setattr(evidence_digests, "USUAL_SEEDS", range(4))
    path = run_dir / name
    content = path.read_bytes()
    at = int(place * len(content))
    path.write_bytes(content[:at] + insert + content[at + removed :])
    with suppress(RunUnreadable, ContractError):
        assert exit_code(check_run(run_dir, digest=digest)) in (0, 1, 4)
    path.write_bytes(content)


NUMBERS = {
    "run.json": "attempt exit_code epochs_completed steps planned_batches seed tokens_seen "
    "vocab_size world_size",
    METADATA: "epoch train_loss val_loss train_ppl wall_seconds tokens_seen grad_norm_max attempt "
    "optimizer_state_bytes checkpoint_bytes",
}
HUGE = 10**400


@pytest.mark.parametrize(
    ("name", "field"),
    [(name, field) for name, fields in NUMBERS.items() for field in fields.split()],
)
def test_number_beyond_all_bounds_is_judged_or_refused(
    run_dir: Path, name: str, field: str
) -> None:
    """JSON knows no limit, and the checker does not fail over an integer that no float can hold."""
    edit(run_dir / name, **{field: HUGE})
    with suppress(RunUnreadable):
        assert exit_code(check_run(run_dir, digest=digest)) in (0, 1)


def test_vocabulary_beyond_all_bounds_is_judged_or_refused(run_dir: Path) -> None:
    """The limit of the first epoch depends on it."""
    edit(run_dir / "run.json", mode="from_scratch", vocab_size=HUGE)
    with suppress(RunUnreadable):
        assert exit_code(check_run(run_dir, digest=digest)) == 1


@pytest.mark.parametrize("field", ["lr_max", "warmup_steps", "target_val_loss"])
def test_hyperparameter_beyond_all_bounds_is_judged(run_dir: Path, field: str) -> None:
    """It is not the one of the contract."""
    edit(run_dir / "run.json", hyperparameters={**OTHER_ROW, field: HUGE})
    assert failed(check_run(run_dir, digest=digest)) == ["009"]


@pytest.mark.parametrize("field", ["value", "limit", "step", "epoch", "attempt", "message"])
def test_event_beyond_all_bounds_is_judged(run_dir: Path, field: str) -> None:
    """An abort is one, whatever numbers it comes with."""
    event = {"event": "ABORT", "abort": "NUMERICAL_INSTABILITY", field: HUGE}
    (run_dir / "events.jsonl").write_text(json.dumps(event) + "\n")
    assert "007" in failed(check_run(run_dir, digest=digest))


def test_pipe_in_place_of_a_log_does_not_make_the_checker_wait(run_dir: Path) -> None:
    """What is no regular file is refused, not opened."""
    (run_dir / "train.jsonl").unlink()
    os.mkfifo(run_dir / "train.jsonl")
    with pytest.raises(OSError, match="is a pipe"):
        check_run(run_dir)


@pytest.mark.parametrize("size", [0, 77])
def test_lost_events_fail(run_dir: Path, size: int) -> None:
    """An abort may have been among them."""
    os.truncate(run_dir / "events.jsonl", size)
    assert failed(check_run(run_dir, digest=digest)) == ["001"]


def test_announced_cycle_is_read(run_dir: Path) -> None:
    """An epoch may be as short as its data then."""
    path, record = run_dir / "run.json", json.loads((run_dir / "run.json").read_text())
    path.write_text(json.dumps({**record, "planned_batches": 50}))
    for file in run_dir.glob("ckpt/*.metadata.json"):
        file.write_text(json.dumps({**json.loads(file.read_text()), "batches": 4}))
    assert failed(check_run(run_dir, digest=digest)) == ["UST"]
    event = {"event": "CYCLE", "attempt": 0, "epoch": 0, "tokens": 4096}
    with (run_dir / "events.jsonl").open("a") as file:
        file.write(json.dumps(event) + "\n")
    assert failed(check_run(run_dir, digest=digest)) == []
