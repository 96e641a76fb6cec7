"""What is done about a machine that runs out of memory or disk."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from lightning_elche.callbacks.host_watch import HostWatch
from lightning_elche.control.requests import StopCause
from lightning_elche.coordination.host.levels import Level
from lightning_elche.coordination.host.monitor import HostAlert
from lightning_elche.coordination.host.thresholds import ThresholdConfig
from lightning_elche.coordination.stopping.run_control import RunControl
from tests.callbacks.hosted import Events, alone


def watch_of(on_critical: str, control: RunControl | None) -> HostWatch:
    config = ThresholdConfig(on_critical=on_critical)  # type: ignore[arg-type]  # one of three
    saves = SimpleNamespace(folder=Path("/"), last_bytes=0)
    return HostWatch(alone(), config, saves, control)  # type: ignore[arg-type]


def alert(gauge: str, level: Level) -> HostAlert:
    return HostAlert(gauge=gauge, level=level, value=96.0)


def test_too_little_memory_pauses_until_there_is_enough() -> None:
    """Of memory and disk."""
    control = RunControl()
    watch = watch_of("pause", control)
    wanted = []
    for gauge, level in (
        ("memory_pct", Level.CRITICAL),
        ("disk_free_bytes", Level.CRITICAL),
        ("memory_pct", Level.WARN),
        ("disk_free_bytes", Level.OK),
    ):
        watch.take(alert(gauge, level))
        wanted.append(control.pause)
    assert wanted == [True, True, True, False]


def test_pause_ends_with_the_watch() -> None:
    """Otherwise nobody would end it."""
    control = RunControl()
    watch = watch_of("pause", control)
    watch.take(alert("memory_pct", Level.CRITICAL))
    watch.close()
    assert not control.pause


def test_too_little_disk_stops_the_run(events: Events) -> None:
    """And is told, with the number."""
    control = RunControl()
    watch_of("stop", control).take(alert("disk_free_bytes", Level.CRITICAL))
    assert control.stop is StopCause.THRESHOLD
    assert control.reason == "`disk_free_bytes` is CRITICAL, at 96"
    assert events[-1][0] == "threshold"
    assert events[-1][1]["level"] == "CRITICAL"


@pytest.mark.parametrize(
    ("on_critical", "gauge", "level"),
    [
        ("alert", "memory_pct", Level.CRITICAL),
        ("stop", "memory_pct", Level.WARN),
        ("stop", "gpu_pct", Level.CRITICAL),  # training is meant to keep it busy
        ("pause", "load_per_cpu", Level.CRITICAL),
    ],
)
def test_all_else_is_told_only(on_critical: str, gauge: str, level: Level) -> None:
    """Warnings, and how busy the machine is."""
    control = RunControl()
    watch_of(on_critical, control).take(alert(gauge, level))
    assert control.stop is StopCause.NONE
    assert not control.pause


def test_action_that_nobody_can_take_is_told_at_the_begin() -> None:
    """As with a strategy whose ranks nothing stops or pauses."""
    with pytest.warns(UserWarning, match="`on_critical` is 'stop', which takes `ElCheStrategy`"):
        watch_of("stop", None)
