"""How ranks hear of a stop, and how they wait together, without a collective."""

from __future__ import annotations

import threading
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from torch.distributed import HashStore

from lightning_elche.control.reports import Report
from lightning_elche.control.requests import StopCause
from lightning_elche.coordination.stopping.run_control import RunControl
from lightning_elche.distributed.control_store import ControlStore
from lightning_elche.exceptions import BreakerTripped, PeerLost
from lightning_elche.loops import pausing
from lightning_elche.loops.pausing import Pause
from lightning_elche.loops.stop_link import StopLink
from tests.coordination.stopwatch import FakeClock

Rank = tuple[ControlStore, RunControl, StopLink]


@pytest.fixture
def ranks() -> list[Rank]:
    shared = HashStore()
    found = []
    for rank in range(3):
        store, control = ControlStore(shared, "run"), RunControl()
        found.append((store, control, StopLink(store, control, rank)))
    return found


def test_stop_of_one_rank_is_heard_by_all(ranks: list[Rank]) -> None:
    """With its cause and reason, and all are in a hurry."""
    ranks[1][1].request_stop(StopCause.HALT, "HALT by ann")
    for _, _, link in (ranks[1], ranks[0], ranks[2]):
        link.exchange()
    heard = [(control.stop, control.reason, store.is_hurried) for store, control, _ in ranks]
    assert heard == [(StopCause.HALT, "HALT by ann", True)] * 3


def test_nothing_is_heard_where_nobody_stops(ranks: list[Rank]) -> None:
    """Nor is anybody hurried."""
    ranks[0][2].exchange()
    assert (ranks[0][1].stop, ranks[0][0].is_hurried) == (StopCause.NONE, False)


def test_hurry_ends_with_the_window_and_begins_anew(ranks: list[Rank]) -> None:
    """A rank whose stop was overtaken by an event asks again."""
    store, control, link = ranks[0]
    control.request_stop(StopCause.API, "")
    link.exchange()
    store.start_window(1)
    other = ranks[1][0]
    other.start_window(1)
    other.listen()
    assert (store.is_hurried, other.is_hurried) == (False, False)
    link.exchange()
    other.listen()
    assert (store.is_hurried, other.is_hurried) == (True, True)


def test_time_that_is_up_ends_every_wait(ranks: list[Rank]) -> None:
    """Whatever asks the store for failures meanwhile."""
    store, *_ = ranks[0]
    store.may_wait = lambda: False
    with pytest.raises(PeerLost, match="in the time that there was to stop"):
        store.raise_if_failed()


def test_rank_zero_saves_alone_and_the_others_do_not(ranks: list[Rank]) -> None:
    """In whichever order they ask, if it comes within the time."""
    assert ranks[0][2].may_save_alone()
    assert not ranks[1][2].may_save_alone(sleep=lambda _: None)


def test_survivor_saves_where_rank_zero_does_not_claim_it(ranks: list[Rank]) -> None:
    """After two seconds of looking."""
    slept: list[float] = []
    assert ranks[2][2].may_save_alone(sleep=slept.append)
    assert sum(slept) == pytest.approx(2.0)


def test_error_of_another_rank_comes_from_its_words() -> None:
    """As does the count."""
    error = BreakerTripped("rank:1:oom", 5)
    assert str(BreakerTripped.from_words(str(error))) == str(error)


# Pauses


def event(*pausing: bool) -> Any:
    reports = tuple(Report(pause=one) for one in pausing)
    return SimpleNamespace(index=4, reports=reports)


def pause_of(ranks: list[Rank], rank: int, sleep: Callable[[float], object]) -> Pause:
    store, control, _ = ranks[rank]
    who: Any = SimpleNamespace(rank=rank, world_size=2)
    return Pause(control, store, who, timeout_s=30.0, sleep=sleep)


def test_ranks_wait_until_the_pause_is_withdrawn(ranks: list[Rank]) -> None:
    """The one that has asked for it, and the one that has not."""
    ranks[0][1].request_pause()
    nap = threading.Event().wait
    other = threading.Thread(
        target=pause_of(ranks, 1, lambda _: nap(0.001)).wait_out, args=[event(True, False)]
    )
    other.start()
    naps: list[bool] = []

    def sleep(_: float) -> None:
        naps.append(other.is_alive() and ranks[0][1].is_paused)
        if len(naps) == 3:
            ranks[0][1].request_pause(False)

    pause_of(ranks, 0, sleep).wait_out(event(True, False))
    other.join(10.0)
    assert (naps, other.is_alive()) == ([True, True, True], False)
    assert not ranks[0][1].is_paused


def test_stop_ends_a_pause(ranks: list[Rank]) -> None:
    """Of any rank, for all: they meet at once."""
    ranks[0][1].request_pause()
    stop = ranks[1][1].request_stop
    pause_of(ranks, 1, lambda _: stop(StopCause.SIGTERM, "")).wait_out(event(True, False))
    pause_of(ranks, 0, lambda _: pytest.fail("it should not wait")).wait_out(event(True, False))
    assert ranks[0][0].is_hurried


def test_silent_rank_ends_a_pause(ranks: list[Rank]) -> None:
    """A rank that is gone would never withdraw it."""
    clock = FakeClock()
    ranks[1][1].clock = clock
    with pytest.raises(PeerLost, match="Rank 0 has not been heard of for 30 seconds of a pause"):
        pause_of(ranks, 1, clock.advance).wait_out(event(True, False))
    assert clock.now - 1000.0 == pytest.approx(30.0, abs=2 * pausing.BEAT_PERIOD_S)
