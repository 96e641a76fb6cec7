"""Step logs judged by the gates: the verdicts do not depend on how a log is read."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_elche.contracts.gates.stepgates import StepGates
from lightning_elche.contracts.model import Contract
from lightning_elche.contracts.steplog import file as steplog_file
from lightning_elche.contracts.steplog import passes as steplog_reader
from lightning_elche.contracts.steplog.fast import decode_fast
from lightning_elche.contracts.steplog.passes import BulkDecoder
from lightning_elche.contracts.steplog.plain import decode_plain
from lightning_elche.contracts.steplog.reading import read_steps
from lightning_elche.contracts.verdicts import GateResult, Verdict
from tests.contracts.recorded_steps import line

CHANGES = st.sampled_from(
    [
        {"train_loss": "NaN"},
        {"train_loss": "1", "grad_norm": "1"},
        {"grad_norm": "1e400"},
        {"lr": "null"},
        {"lr": ""},
        {"gpu_util_pct": "100.5"},
        {"tokens_per_sec": "-1"},
        {"wall_ms": "-1"},
        {"wall_ms": ""},
        {"epoch": "1"},
        {"extra": "1"},
        {"step": "7"},
        {"step": "0.0"},
    ]
)
ALL = (Verdict.PASS,) * 4


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("log") / "train.jsonl"


def judge(
    log: Path, text: bytes, decoders: tuple[BulkDecoder, ...] | None = None
) -> tuple[GateResult, ...]:
    """Return what the gates of the default contract say of a log."""
    log.write_bytes(text)
    gates = StepGates(Contract.default())
    read_steps(log, gates, name="train.jsonl", decoders=decoders)
    return gates.results()


def test_clean_log_passes_all_gates(log: Path) -> None:
    """Judged at once, with all fields in range."""
    results = judge(log, b"".join(line(step) for step in range(500)))
    assert tuple(result.verdict for result in results) == ALL


def test_resumed_log_passes_all_gates(log: Path) -> None:
    """The steps that were taken back, and what was wrong with them, do not count."""
    first = [line(step, attempt="0") for step in range(9)] + [line(9, attempt="0", lr="NaN")]
    second = [line(step, attempt="1") for step in range(5, 12)]
    results = judge(log, b"".join(first + second))
    assert tuple(result.verdict for result in results) == ALL


@pytest.mark.parametrize(
    ("bad", "gate", "message"),
    [
        (b"x\n", "GATE-TRAIN-001", "not JSON: Expecting value"),
        (line(1, lr=""), "GATE-TRAIN-001", "METRIC_MISSING at step 1: lr is absent"),
        (
            line(1, train_loss="NaN"),
            "GATE-TRAIN-007",
            "NUMERICAL_INSTABILITY at step 1: train_loss = nan",
        ),
        (
            line(1, gpu_util_pct="150"),
            "GATE-TRAIN-008",
            "THROUGHPUT_OUT_OF_RANGE at step 1: gpu_util_pct = 150 outside [0, 100]",
        ),
    ],
    ids=["broken", "absent", "nan", "range"],
)
def test_bad_line_fails_its_gate_at_its_place(
    log: Path, bad: bytes, gate: str, message: str
) -> None:
    """The finding names the line and the byte."""
    results = judge(log, line(0) + bad + line(2))
    (finding,) = next(result.findings for result in results if result.gate == gate)
    assert finding.message == message
    assert finding.at is not None
    assert (finding.at.path, finding.at.line, finding.at.offset) == ("train.jsonl", 2, len(line(0)))


@pytest.mark.slow
@settings(max_examples=150)
@given(
    changes=st.dictionaries(st.integers(0, 39), CHANGES, max_size=5),
    broken=st.sets(st.integers(0, 39), max_size=2),
)
def test_verdicts_do_not_depend_on_the_way_of_reading(
    log: Path, changes: dict[int, dict[str, str]], broken: set[int]
) -> None:
    """Same verdicts, reasons and findings, with and without msgspec, and line by line."""
    lines = [line(i, **changes.get(i, {})) for i in range(40)]
    text = b"".join(b"?\n" if i in broken else one for i, one in enumerate(lines))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(steplog_file, "BLOCK_BYTES", 2000)
        patch.setattr(steplog_reader, "FEW_BYTES", 300)
        slow = judge(log, text, ())
        assert judge(log, text, (decode_fast,)) == slow
        assert judge(log, text, (decode_plain,)) == slow
