"""Tests of one session against another: afterwards, resumed, or given all steps at once."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence

from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_elche.contracts.aborts import abort_facts, violation_of
from lightning_elche.contracts.gates.stepgates import StepGates
from lightning_elche.contracts.model import ThresholdCheck
from lightning_elche.contracts.records import StepRecord
from lightning_elche.contracts.session import GateSession
from lightning_elche.contracts.verdicts import Violation
from tests.contracts.sample_runs import ALL_IDS, epoch_of, fields_of, step_of
from tests.contracts.sessions import F, closed, end_of, session_of, verdicts_of


def _play(session: GateSession, moves: Sequence[StepRecord | float]) -> Violation | None:
    """Give a session steps and, between them, validation losses that close epochs."""
    for move in moves:
        epoch = len(session.val_losses)
        is_step = isinstance(move, StepRecord)
        violation = session.step(move) if is_step else session.val(epoch, move)
        if violation is not None:
            return violation
        if not is_step:
            session.close_epoch(epoch_of(epoch, move))
    return None


@st.composite
def plays(draw: st.DrawFn) -> list[StepRecord | float]:
    """Draw the moves of a run, the last ones at times poisoned."""
    step, moves = 0, []
    for _ in range(draw(st.integers(0, 12))):
        if draw(st.booleans()):
            loss = draw(st.sampled_from([2.0, 3.0, 3.0, 3.0, 1.0, math.nan]))
            gap = draw(st.sampled_from([0, 0, 0, 0, 0, 1]))
            moves.append(step_of(step + gap, train_loss=loss, grad_norm=1.0))
            step += 1
        else:
            moves.append(draw(st.sampled_from([3.0, 2.0, 2.5, 4.0, 5.0, 12.0, math.nan])))
    return moves


@settings(max_examples=200)
@given(plays())
def test_verdicts_afterwards_are_those_of_the_live_run(moves: list[StepRecord | float]) -> None:
    """From the clean steps, the closed epochs and the ABORT event the same verdicts follow."""
    live, afterwards = session_of(), session_of()
    violation = _play(live, moves)
    log = StepGates(live.contract)
    for move in moves[: None if violation is None else live.steps.records + len(live.val_losses)]:
        if isinstance(move, StepRecord):
            log.step(move)
    closed(afterwards, *live.val_losses.values())
    if violation is not None:
        told = violation_of(json.loads(json.dumps(abort_facts(violation), allow_nan=False)))
        assert told is not None
        afterwards.abort(told)
    end = end_of(len(live.val_losses), "ABORTED" if violation else "OK")
    assert verdicts_of(afterwards, end, log) == verdicts_of(live, end)


@settings(max_examples=100)
@given(plays(), st.integers(0, 12))
def test_session_goes_on_from_its_state(moves: list[StepRecord | float], cut: int) -> None:
    """A session restored from JSON ends as one that was never interrupted."""
    check = ThresholdCheck(metric="val_loss", stat="median", epochs=(1, 9), max=2.5)
    whole, first, second = (session_of(*ALL_IDS, check=check) for _ in range(3))
    for session in (whole, first):
        session.cycle(1, 9)
    if _play(first, moves[:cut]) is None:
        second.load_state_dict(json.loads(json.dumps(first.state_dict(), allow_nan=False)))
        _play(second, moves[cut:])
        _play(whole, moves)
        end = end_of(len(whole.val_losses))
        assert second.verdicts(end) == whole.verdicts(end)
        assert second.state_dict() == whole.state_dict()


def test_placeholder_epoch_is_remembered_in_the_state() -> None:
    """A resumed run is still judged by what it did before."""
    session, other = session_of(), session_of()
    made_up = {"train_loss": 1.0, "grad_norm_max": 1.0, "train_ppl": math.e, "wall_seconds": 0.1}
    session.close_epoch(epoch_of(0, **made_up))
    other.load_state_dict(json.loads(json.dumps(session.state_dict())))
    assert verdicts_of(other, end_of(1))["EXHAUST"] is F


def test_steps_taken_in_together_are_as_one_by_one() -> None:
    """Also where they are not in sequence, which the log would tell."""
    for steps in ((0, 1, 2), (0, 2, 3)):
        records = [StepRecord(**fields_of(step)) for step in steps]
        together, alone = session_of(), session_of()
        together.extend(records)
        for record in records:
            alone.step(record)
        assert verdicts_of(together, end_of(0)) == verdicts_of(alone, end_of(0))
        assert together.steps.state_dict() == alone.steps.state_dict()
