"""Reading contracts from files and bytes."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightning_elche.contracts.grammar.loader import (
    DEFAULT_TEXT,
    default_contract,
    load_contract,
    parse_contract,
    validate_text,
)
from lightning_elche.contracts.model import (
    Contract,
    Convergence,
    FieldSpec,
    Gate,
    Hyperparameters,
    Suppression,
    ThresholdCheck,
)
from lightning_elche.contracts.verdicts import Location, Severity
from lightning_elche.exceptions import ContractError
from tests.contracts.contract_texts import OPEN, TODAY, contract

DEFAULT = DEFAULT_TEXT.decode()


def test_default_contract_declares_eleven_gates() -> None:
    """All gates of a training loop are in force where no contract is named."""
    gates = [gate.id.removeprefix("GATE-TRAIN-") for gate in Contract.default().gates]
    assert gates == [*(f"{i:03d}" for i in range(1, 11)), "EXHAUST"]


def test_default_contract_has_the_values_of_its_file() -> None:
    """Numbers are read as numbers, and rows by their mode."""
    default = default_contract()
    assert default.convergence == Convergence(
        target_val_loss=2.2, patience_epochs=2, min_epochs_before_early_stop=3
    )
    assert default.hyperparameter_defaults["from_scratch"] == Hyperparameters(
        regime="from_scratch", lr_max=3e-4, warmup_steps=1000, target_val_loss=3.0
    )


def test_default_contract_has_six_fields_nine_metadata_fields_and_templates() -> None:
    """What records must have, and where files lie, is part of the contract."""
    default = default_contract()
    names = ["step", "train_loss", "grad_norm", "lr", "tokens_per_sec", "gpu_util_pct"]
    assert [field.name for field in default.required] == names
    assert len(default.metadata_fields) == 9
    assert default.checkpoint_template is not None
    assert default.checkpoint_template.relative(3) == "ckpt/epoch-003.ckpt"


def test_default_contract_is_read_once() -> None:
    """Whoever asks for it gets the same object."""
    assert default_contract() is Contract.default()


def test_contract_keeps_its_bytes_and_path(tmp_path: Path) -> None:
    """A run copies the file byte by byte, and names it."""
    path = tmp_path / "c.yaml"
    path.write_bytes(b"\xef\xbb\xbf" + DEFAULT_TEXT)
    loaded = Contract.load(path)
    assert (loaded.text, loaded.path) == (b"\xef\xbb\xbf" + DEFAULT_TEXT, str(path))


def test_gate_has_its_place_in_the_file() -> None:
    """A report can point to the rule that was broken."""
    gates = contract(OPEN + "gates:\n- {id: GATE-TRAIN-007, rule: finite, binds_to: INV-7}\n").gates
    at = Location(path="c.yaml", line=4, column=3, pointer="/gates/0")
    assert gates == (Gate(id="GATE-TRAIN-007", rule="finite", binds_to="INV-7", at=at),)


def test_threshold_is_read() -> None:
    """A gate of the user's own has a metric, a statistic, a window and bounds."""
    check = "{metric: wall_ms, stat: median, steps: [20, 50], max: 500}"
    (gate,) = contract(OPEN + f"gates: [{{id: MY-1, check: {check}}}]\n").gates
    assert gate.check == ThresholdCheck(metric="wall_ms", stat="median", steps=(20, 50), max=500)


def test_suppression_is_read() -> None:
    """A warning is silenced until a day, with a reason."""
    text = OPEN + "suppress: [{rule: EV-PPL, until: 2026-12-31, reason: known}]\n"
    assert contract(text).suppressions == (
        Suppression(rule="EV-PPL", until="2026-12-31", reason="known"),
    )


def test_missing_blocks_of_an_open_contract_are_those_of_the_default() -> None:
    """A gate about records needs to know their fields, even if the file does not say."""
    read = contract(OPEN + "gates: [{id: GATE-TRAIN-001}]\n")
    assert read.required == default_contract().required
    assert (read.checkpoint_template, read.metadata_fields) == (
        None,
        default_contract().metadata_fields,
    )


def test_declared_fields_replace_those_of_the_default() -> None:
    """A contract may ask for other fields."""
    block = "per_step_metrics: {sampling_period_steps: 10, required: [{name: step, type: u64}]}\n"
    read = contract(OPEN + "gates: [{id: GATE-TRAIN-001}]\n" + block)
    assert (read.required, read.sampling_period_steps) == (
        (FieldSpec(name="step", type="u64"),),
        10,
    )


def test_blocks_of_other_families_are_not_read() -> None:
    """A key of the same name may mean anything in a kernel contract."""
    read = contract(OPEN + "convergence: quadratic\nequations: {}\n")
    assert (read.convergence, read.required) == (Convergence(), ())


@pytest.mark.parametrize(
    ("block", "knows"),
    [
        ("", False),
        ("hyperparameter_defaults: {finetune: {regime: finetune, %s}}", False),
        ("hyperparameter_defaults: {from_scratch: {regime: from_scratch, %s}}", True),
        ("non_divergence: {epoch_zero_cap: {finetune: 10.0}}", False),
        ("non_divergence: {epoch_zero_cap: {finetune: 10, from_scratch: 2*ln(vocab_size)}}", True),
        ("non_divergence: {rule: FROM_SCRATCH regime}", True),
        ("non_divergence: {rule: val_loss <= 10}", False),
        ("description: from_scratch", False),
    ],
)
def test_from_scratch_must_be_mentioned(block: str, knows: bool) -> None:
    """A row, a cap or the text of the rule knows training from scratch."""
    block = block.replace("%s", "lr_max: 1, warmup_steps: 0")
    read = contract(OPEN + f"gates: [{{id: GATE-TRAIN-005, rule: doubling}}]\n{block}\n")
    assert read.knows_from_scratch is knows


def test_from_scratch_may_be_mentioned_in_the_gate() -> None:
    """The rule of the gate counts, and that of another gate does not."""
    text = OPEN + "gates: [{id: GATE-TRAIN-%s, rule: 'from_scratch: 2 ln V'}]\n"
    assert contract(text % "005").knows_from_scratch
    assert not contract(text % "003").knows_from_scratch


def test_invalid_contract_raises_with_all_findings() -> None:
    """The error names the first place and carries the rest."""
    with pytest.raises(ContractError, match=r"^c\.yaml:3:1: CT-NEARMISS key 'convergense'") as err:
        contract(OPEN + "convergense: 1\nversion: [1]\nkind: x\n")
    assert "(and 1 more)" in str(err.value)
    assert [one.rule for one in err.value.findings] == [
        "CT-NOGATES", "CT-NEARMISS", "CT-SCHEMA", "CT-VERSION", "CT-TOPKIND",
    ]  # fmt: skip


def test_valid_contract_carries_its_warnings() -> None:
    """What is not an error does not keep a contract from being used."""
    read = contract(OPEN + "kind: x\ngates: [{id: GATE-TRAIN-007}]\n")
    assert [one.rule for one in read.findings] == ["CT-TOPKIND"]


@pytest.mark.parametrize("make", [os.mkdir, os.mkfifo], ids=["folder", "fifo"])
def test_only_regular_files_are_opened(make: object, tmp_path: Path) -> None:
    """A folder or a FIFO is refused at once, although opening a FIFO would block."""
    path = tmp_path / "c.yaml"
    assert callable(make)
    make(path)
    with pytest.raises(OSError, match="a contract must be a regular file"):
        load_contract(path)


def test_missing_file_is_an_os_error(tmp_path: Path) -> None:
    """A path that leads nowhere says so."""
    with pytest.raises(FileNotFoundError):
        load_contract(tmp_path / "none.yaml")


def test_dangling_and_circular_links_are_os_errors(tmp_path: Path) -> None:
    """Links that lead nowhere do not hang."""
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    with pytest.raises(OSError, match="symbolic links"):
        load_contract(tmp_path / "loop")


def test_large_file_is_not_read_to_its_end(tmp_path: Path) -> None:
    """A sparse file of a terabyte is refused as fast as one of 5 MiB."""
    path = tmp_path / "c.yaml"
    path.touch()
    os.truncate(path, 10**12)
    with pytest.raises(ContractError, match="4 MiB"):
        load_contract(path)


LINES = st.sampled_from(
    [*DEFAULT.splitlines(), "gates:", "- {id: GATE-TRAIN-001}", "a: &a [*a]", "suppress: [5]"]
)


@given(lines=st.lists(LINES, max_size=30))
def test_any_lines_are_judged_without_an_error(lines: list[str]) -> None:
    """Lines in any order are a contract or have findings, each with a place."""
    found = validate_text("\n".join(lines).encode(), path="c.yaml", today=TODAY)
    assert all(one.at is not None and one.at.line for one in found)


@given(at=st.integers(0, len(DEFAULT_TEXT) - 1), byte=st.integers(0, 255))
def test_any_changed_byte_is_judged_without_an_error(at: int, byte: int) -> None:
    """A contract with one other byte is read, or refused because of an error that is found."""
    text = DEFAULT_TEXT[:at] + bytes([byte]) + DEFAULT_TEXT[at + 1 :]
    is_valid = False
    with contextlib.suppress(ContractError):
        is_valid = parse_contract(text, path="c.yaml", today=TODAY).text == text
    found = validate_text(text, path="c.yaml", today=TODAY)
    assert is_valid is not any(one.severity is Severity.ERROR for one in found)
