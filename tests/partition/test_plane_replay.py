"""The record of steps that a plane makes, or verifies."""

from __future__ import annotations

import pytest

from lightning_elche.partition import errors
from lightning_elche.partition.replay import Replay
from lightning_elche.partition.threaded import ThreadedExecutor
from tests.partition.planes import doubling, recorded, x_of
from tests.partition.tables import double


def test_record_holds_the_fingerprint_of_each_step() -> None:
    """A recorded fingerprint is that of the state after the step."""
    plane = doubling(replay=Replay("record"))
    fingerprint = plane.step().fingerprint
    assert fingerprint == plane.state.fingerprint(1)
    assert plane.recorded_replay == (fingerprint,)


def test_steps_without_replay_have_no_fingerprint() -> None:
    """Nothing is computed that nobody wants."""
    step = doubling().step()
    assert (step.fingerprint, step.checkpoint) == (None, None)


def test_run_that_repeats_its_record_is_verified() -> None:
    """The same steps from the same state have the same fingerprints, whoever makes them."""
    plane = doubling(replay=Replay("verify", recorded(3)))
    plane.run(3, ThreadedExecutor())
    assert list(plane.recorded_replay) == recorded(3)


def test_step_with_another_fingerprint_was_made_and_is_not_recorded() -> None:
    """After a divergence the state can be looked at, and the record ends before it."""
    plane = doubling(replay=Replay("verify", recorded(2)))
    plane.step()
    plane.add_phase("more", double)
    with pytest.raises(errors.ReplayDivergence) as caught:
        plane.step()
    assert caught.value.step == 2
    assert (plane.current_step, x_of(plane)[1]) == (2, 8.0)
    assert list(plane.recorded_replay) == recorded(1)
