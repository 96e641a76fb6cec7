"""A rank that trains nothing for some averaging events, so that nobody waits for it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING

from lightning_elche.distributed.polling import pauses

if TYPE_CHECKING:
    from lightning_elche.control.events import AveragingEvent
    from lightning_elche.loops.run import Run
    from lightning_elche.strategies.elche import ElCheStrategy

__all__ = ["events_sat_out"]

FIRST_NAP_S, LONGEST_NAP_S = 0.0002, 0.005


def events_sat_out(
    strategy: ElCheStrategy, wishes: Callable[[], Mapping[str, bool]], is_over: Callable[[], bool]
) -> Iterator[AveragingEvent]:
    """Yield the averaging events for which this rank is to train nothing, as they take place.

    Args:
        strategy: Knows how many.
        wishes: Returns what this rank asks of all, by argument of `Run.meet_if_due`.
        is_over: Returns whether all ranks leave the epoch after the last event.
    """
    while strategy.idle_events and not is_over():
        strategy.idle_events -= 1
        yield _next_event(strategy.run, wishes)


def _next_event(run: Run, wishes: Callable[[], Mapping[str, bool]]) -> AveragingEvent:
    """Wait as a rank without data does, but say that there are some: the epoch is not over."""
    rounds, naps = run.rounds, pauses(FIRST_NAP_S, LONGEST_NAP_S)
    event = None
    while event is None:
        rounds.window.is_idle = True
        if rounds.throttle is not None:
            rounds.throttle.post(rounds.window.batches, is_drained=True)
        event = run.meet_if_due(is_drained=False, **wishes())
        if event is None:
            rounds.window.waited_s += next(naps)
    rounds.window.is_idle = False
    return event
