"""A run with any bytes in its files, and with numbers beyond all bounds."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lightning_elche.contracts.checking.check import check_run, exit_code
from lightning_elche.contracts.evidence import digests as evidence_digests
from lightning_elche.contracts.runfolder.rundir import RunUnreadable
from lightning_elche.exceptions import ContractError
from tests.contracts.checked import METADATA, OTHER_ROW, failed
from tests.contracts.runs import digest, edit


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
