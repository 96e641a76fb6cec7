"""The exit code of a process whose run was ended."""

from __future__ import annotations

import pytest
from torch.multiprocessing.spawn import ProcessRaisedException

from lightning_elche import GateViolation, exit_on_violation
from lightning_elche.contracts.verdicts import Abort, Violation
from lightning_elche.exceptions import RecoveryHalted

BROKEN = Violation(gate="GATE-TRAIN-005", abort=Abort.DIVERGENCE, message="DIVERGENCE at epoch 1")
HALTED = RecoveryHalted("3 rollbacks in 10 steps", step=7, level=4, rank=1)


def code_of(error: Exception) -> object:
    with pytest.raises(SystemExit) as raised, exit_on_violation():
        raise error
    return raised.value.code


def test_codes_are_those_of_what_has_ended_the_run(capsys: pytest.CaptureFixture[str]) -> None:
    """And it is told."""
    assert [code_of(GateViolation(BROKEN)), code_of(HALTED)] == [25, 40]
    assert capsys.readouterr().err.splitlines() == [str(GateViolation(BROKEN)), str(HALTED)]


def test_rank_that_another_one_has_started_ends_quietly(capsys: pytest.CaptureFixture[str]) -> None:
    """Or the launcher would end the other one before it could tell."""
    halted = RecoveryHalted("3 rollbacks", step=7, level=4, is_child=True)
    assert [code_of(GateViolation(BROKEN, is_child=True)), code_of(halted)] == [0, 0]
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("line", "code"),
    [
        ("lightning_elche.exceptions.GateViolation: DIVERGENCE at epoch 1 (rank 0)", 25),
        ("lightning_elche.exceptions.RecoveryHalted: 3 rollbacks (rank 1, step 7).", 40),
    ],
)
def test_code_is_found_in_the_traceback_of_a_rank(line: str, code: int) -> None:
    """All that a launcher by fork or spawn has of it."""
    text = f"\n-- Process 1 terminated with the following error:\nTraceback ...\n{line}\n"
    assert code_of(ProcessRaisedException(text, 1, 4711)) == code


@pytest.mark.parametrize(
    "error", [ValueError("no"), ProcessRaisedException("ValueError: no", 1, 4711)]
)
def test_other_errors_stay(error: Exception) -> None:
    """They are bugs, and their tracebacks are wanted."""
    with pytest.raises(type(error)), exit_on_violation():
        raise error
