"""Tests of runs whose data end early, or were made up."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from lightning_elche.contracts.session import RunFacts
from lightning_elche.contracts.verdicts import Verdict
from tests.contracts.sample_runs import epoch_of, step_of
from tests.contracts.sessions import F, P, U, end_of, session_of, verdicts_of


def test_run_that_ran_out_of_data_is_aborted() -> None:
    """An epoch short of its batches fails, and the message counts them."""
    session = session_of()
    violation = session.exhausted(epoch=2, batches=3, planned=5, tokens=4096)
    assert violation is not None
    assert (violation.exit_code, violation.value, violation.limit) == (31, 3.0, 5.0)
    assert violation.message == ("STREAM_EXHAUSTED at epoch 2: 3 of 5 batches, 4096 tokens seen")
    assert verdicts_of(session, end_of(0))["EXHAUST"] is F


@pytest.mark.parametrize(("planned", "text"), [(5, "3 of 5 batches"), (None, "3 batches")])
def test_run_that_ran_out_of_data_was_planned_as_it_told(planned: int | None, text: str) -> None:
    """Where the caller does not say what was planned the run may."""
    session = session_of(facts=RunFacts(planned_batches=planned))
    violation = session.exhausted(epoch=2, batches=3, tokens=9)
    assert violation is not None
    assert text in violation.message


def test_run_that_repeats_its_data_openly_is_not_exhausted() -> None:
    """From the epoch on in which it says so, and names its tokens."""
    session = session_of()
    session.cycle(1, None)
    session.cycle(2, 4096)
    assert session.exhausted(epoch=3, batches=3, tokens=9) is None
    assert session.exhausted(epoch=1, batches=3, tokens=9) is not None


@pytest.mark.parametrize(
    ("batches", "cycled_from", "stop_reason", "expected"),
    [
        ((5, 5), None, "max_epochs", P),
        ((5, 4), None, "max_epochs", F),
        ((4, 5), None, "max_steps", F),
        ((5, 4), None, "max_steps", P),
        ((5, 4), None, "external", P),
        ((5, 4), 1, "max_epochs", P),
        ((4, 5), 1, "max_epochs", F),
    ],
)
def test_short_epoch_fails_unless_it_was_cut_or_announced(
    batches: tuple[int, int], cycled_from: int | None, stop_reason: str, expected: Verdict
) -> None:
    """Five batches were planned; only the last epoch can be cut by the end of the run."""
    session = session_of()
    session.step(step_of(0))
    if cycled_from is not None:
        session.cycle(cycled_from, 4096)
    for epoch, count in enumerate(batches):
        session.close_epoch(replace(epoch_of(epoch, 3.0 - epoch), batches=count))
    assert verdicts_of(session, end_of(2, stop_reason=stop_reason))["EXHAUST"] is expected


def test_run_is_not_exhausted_without_the_gate() -> None:
    """A contract without the gate lets an epoch be short."""
    assert session_of("GATE-TRAIN-001").exhausted(epoch=0, batches=0, tokens=0) is None


@pytest.mark.parametrize(
    ("device", "seconds", "expected"), [("cpu", 9.0, F), ("cuda", 9.0, P), (None, 9.0, U)]
)
def test_placeholder_epoch_is_found(device: str | None, seconds: float, expected: Verdict) -> None:
    """An epoch of made-up numbers fails, and is undecided where the device matters."""
    session = session_of(facts=RunFacts(device=device))
    session.step(step_of(0))
    made_up = {"train_loss": 1.0, "grad_norm_max": 1.0, "train_ppl": math.e}
    session.close_epoch(epoch_of(0, **made_up, wall_seconds=seconds))
    assert verdicts_of(session, end_of(1))["EXHAUST"] is expected
