"""Steps at which ranks that step together stop, save and pause."""

from __future__ import annotations

from torch.distributed import HashStore

from lightning_elche.callbacks.lockstep import Lockstep
from lightning_elche.control.requests import StopCause
from lightning_elche.coordination.stopping.run_control import RunControl
from lightning_elche.distributed.control_store import ControlStore
from tests.coordination.stopwatch import FakeClock


class Ranks:
    """Two ranks that make a step of half a second together."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        shared = HashStore()
        self.controls = [RunControl(self.clock) for _ in range(2)]
        self.steps = [
            Lockstep(control, rank, ControlStore(shared, "run"), clock=self.clock)
            for rank, control in enumerate(self.controls)
        ]
        for _ in range(200):
            self.step()

    def step(self) -> None:
        self.clock.advance(0.5)
        for one in self.steps:
            one.step()

    def exchange(self) -> None:
        for one in (*self.steps[::-1], *self.steps):
            one.exchange()


def test_signal_to_one_rank_stops_all_after_the_same_step() -> None:
    """Two steps for the notice of a second, and two more."""
    ranks = Ranks()
    ranks.controls[1].request_stop(StopCause.SIGTERM, "")
    ranks.exchange()
    stops = []
    for _ in range(4):
        stops.append([one.stops for one in ranks.steps])
        ranks.step()
    assert stops == [[False, False]] * 4
    assert [one.stops for one in ranks.steps] == [True, True]
    assert ranks.controls[0].stop is StopCause.SIGTERM


def test_checkpoint_is_saved_by_all_once() -> None:
    """And another one when it is asked for again."""
    ranks = Ranks()
    for _ in range(2):
        ranks.controls[0].request_checkpoint()
        ranks.exchange()
        for _ in range(4):
            assert not any(one.saves() for one in ranks.steps)
            ranks.step()
        assert [one.saves() for one in ranks.steps] == [True, True]
        assert not any(one.is_wanted for one in ranks.steps)


def test_pause_begins_together_and_ends_for_all() -> None:
    """Rank 0 says when."""
    ranks = Ranks()
    ranks.controls[0].request_pause()
    ranks.exchange()
    for _ in range(4):
        ranks.step()
    assert [one.pauses for one in ranks.steps] == [True, True]
    ranks.controls[0].request_pause(False)
    for one in ranks.steps:
        one.wait_out_pause()
    assert [one.pauses for one in ranks.steps] == [False, False]


def test_one_device_needs_no_notice() -> None:
    """What is asked for is done after the present step; a stop ends a pause."""
    control = RunControl()
    alone = Lockstep(control, 0, sleep=lambda _: control.request_stop(StopCause.API, ""))
    control.request_pause()
    assert alone.pauses
    alone.wait_out_pause()
    assert (alone.pauses, alone.stops) == (False, True)
