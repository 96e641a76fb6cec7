"""Windows that a slow link lengthens."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from lightning_elche import CadenceConfig
from lightning_elche.callbacks.host_link import LinkAdvice
from lightning_elche.control.controller import Controller
from lightning_elche.control.events import AveragingEvent
from lightning_elche.control.guard import GuardAction
from lightning_elche.control.reports import Report
from lightning_elche.coordination.bandwidth.budget import BandwidthConfig


def event_of(controller: Controller, *, exchanged_bytes: int = 1_000_000) -> AveragingEvent:
    reports = tuple(Report(batches=10, compute_ms=100.0, weight=1.0) for _ in range(2))
    controller.report(reports)
    return AveragingEvent(
        index=0,
        epoch=0,
        global_step=20,
        epoch_batches=20,
        reports=reports,
        plan=controller.plan,
        action=GuardAction.STABLE,
        wait_ms=0.0,
        transfer_ms=1.0,
        exchanged_bytes=exchanged_bytes,
    )


def advise(link_mbps: float | None, *, exchanged_bytes: int = 1_000_000) -> tuple[int, Any]:
    """Show an event with windows of 0.1 s, and return the anchor after it, and the floor."""
    controller = Controller(2)
    rounds = SimpleNamespace(controller=controller)
    strategy: Any = SimpleNamespace(run=SimpleNamespace(rounds=rounds))
    advice = LinkAdvice(strategy, BandwidthConfig(link_mbps=link_mbps))
    for _ in range(3):
        advice.on_average_end(event_of(controller, exchanged_bytes=exchanged_bytes))
    return controller.plan.anchor, advice.floor_s


def test_windows_are_lengthened_once_to_what_the_link_allows() -> None:
    """A megabyte over 100 Mbit/s every 0.8 s: 80 steps of 10 ms; then the cadence shortens them."""
    with pytest.warns(UserWarning, match="should meet every 0.8 s") as told:
        anchor, floor_s = advise(100.0)
    assert (floor_s, len(told)) == (pytest.approx(0.8), 1)
    assert 75 <= anchor <= 80


def test_windows_are_never_lengthened_beyond_their_limit() -> None:
    """However slow the link is; each later event shortens them by one step."""
    with pytest.warns(UserWarning, match="should meet every 80 s"):
        anchor, _ = advise(1.0)
    assert CadenceConfig().max_anchor - 2 <= anchor <= CadenceConfig().max_anchor


@pytest.mark.parametrize(("link_mbps", "num_bytes"), [(None, 10**9), (100_000.0, 1), (10.0, 0)])
def test_windows_are_left_alone_where_the_link_is_fast_or_unknown(
    link_mbps: float | None, num_bytes: int
) -> None:
    """Or nothing was exchanged."""
    anchor, _ = advise(link_mbps, exchanged_bytes=num_bytes)
    assert anchor == Controller(2).plan.anchor
