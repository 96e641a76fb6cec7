"""Gauges that rise, fail and recover."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lightning_elche.coordination.host.gauges import Gauge, gauges_of
from lightning_elche.coordination.host.levels import LevelWatch
from lightning_elche.coordination.host.monitor import HostAlert, HostMonitor
from lightning_elche.coordination.host.thresholds import ThresholdConfig
from tests.coordination.calls import eventually
from tests.distributed.threads import FakeClock

Read = Callable[[], "float | None"]


def ignore(alert: HostAlert) -> None:
    del alert


def gauge(read: Read, *, name: str = "memory_pct") -> Gauge:
    watch = LevelWatch(warn=80.0, critical=90.0, hysteresis=3.0, samples=2)
    return Gauge(name=name, read=read, watch=watch, pressure=lambda value: value)


def alerts_of(read: Read, looks: int) -> tuple[HostMonitor, list[str]]:
    told: list[HostAlert] = []
    monitor = HostMonitor([gauge(read)], told.append)
    for _ in range(looks):
        monitor.look()
    return monitor, [str(alert) for alert in told]


def failing(*values: float | Exception) -> Read:
    left: Iterator[float | Exception] = iter(values)

    def read() -> float:
        value = next(left)
        if isinstance(value, Exception):
            raise value
        return value

    return read


def test_change_of_level_is_told_once() -> None:
    """With the number that brought it about."""
    _, told = alerts_of(failing(*[91.5] * 9), 9)
    assert told == ["`memory_pct` is CRITICAL, at 91.5"]


def test_gauge_that_fails_is_told_once_until_it_works_again() -> None:
    """It reads unknown, and keeps its level."""
    lost = OSError("gone")
    monitor, told = alerts_of(failing(85.0, 85.0, lost, lost, lost, 85.0, lost), 7)
    assert told == [
        "`memory_pct` is WARN, at 85",
        "`memory_pct` cannot be read: OSError: gone",
        "`memory_pct` cannot be read: OSError: gone",
    ]
    assert monitor.readings() == {"memory_pct": None}
    assert monitor.levels["memory_pct"].name == "WARN"


def test_failure_of_one_gauge_leaves_the_others() -> None:
    """They are read all the same."""
    bad, good = gauge(failing(OSError("gone")), name="gpu_pct"), gauge(lambda: 7.0)
    monitor = HostMonitor([bad, good], ignore)
    monitor.look()
    assert monitor.readings() == {"gpu_pct": None, "memory_pct": 7.0}


def test_listener_that_raises_ends_nothing(caplog: pytest.LogCaptureFixture) -> None:
    """What it was not told of is in the log."""

    def listen(alert: HostAlert) -> None:
        raise ArithmeticError(str(alert))

    monitor = HostMonitor([gauge(lambda: 95.0)], listen)
    for _ in range(3):
        monitor.look()
    assert "Nobody was told that `memory_pct` is CRITICAL" in caplog.text


def test_time_until_the_disk_is_full_is_told() -> None:
    """A gigabyte a minute, of a hundred that are left."""
    clock, free = FakeClock(), 102e9

    def read() -> float:
        nonlocal free
        clock.now += 1.0
        free -= 1e9 / 60.0
        return free

    monitor = HostMonitor([gauge(read, name="disk_free_bytes")], ignore, clock=clock, period_s=1.0)
    for _ in range(120):
        monitor.look()
    assert monitor.disk_full_s == pytest.approx(6000.0, rel=0.05)


def test_thread_looks_until_it_is_stopped() -> None:
    """And is gone then."""
    looks: list[int] = []
    monitor = HostMonitor([gauge(lambda: looks.append(1) or 1.0)], print, period_s=0.001)
    monitor.start()
    assert eventually(lambda: len(looks) > 3)
    monitor.stop()
    seen = len(looks)
    assert not eventually(lambda: len(looks) > seen, timeout_s=0.05)


def read_once(config: ThresholdConfig, folder: Path, checkpoint_bytes: int) -> dict[str, str]:
    monitor = HostMonitor(
        gauges_of(
            config, folder=lambda: folder, checkpoint_bytes=lambda: checkpoint_bytes, gpu=None
        ),
        ignore,
    )
    monitor.look()
    return {name: level.name for name, level in monitor.levels.items()}


@pytest.mark.parametrize(
    ("floor", "checkpoint_bytes", "level"),
    [
        ("2x_checkpoint", 0, "OK"),  # none was saved yet
        ("2x_checkpoint", 1000, "OK"),
        ("2x_checkpoint", 10**18, "CRITICAL"),
        ("1B", 10**18, "OK"),
        ("1000000TB", 0, "CRITICAL"),
    ],
)
def test_disk_must_hold_some_checkpoints_or_bytes(
    tmp_path: Path, floor: str, checkpoint_bytes: int, level: str
) -> None:
    """On this machine's real disk, in a folder that is not there yet."""
    config = ThresholdConfig(disk_free=floor, samples=1)
    levels = read_once(config, tmp_path / "not" / "there", checkpoint_bytes)
    assert levels["disk_free_bytes"] == level


def test_gauges_of_this_machine_can_be_read(tmp_path: Path) -> None:
    """None of them is unknown, and percentages are some."""
    monitor = HostMonitor(
        gauges_of(
            ThresholdConfig.polite(), folder=lambda: tmp_path, checkpoint_bytes=lambda: 0, gpu=None
        ),
        ignore,
    )
    monitor.look()
    readings = monitor.readings()
    assert set(readings) == {
        *("disk_free_bytes", "memory_pct", "disk_pct", "cpu_pct", "load_per_cpu")
    }
    assert all(value is not None and value >= 0.0 for value in readings.values())
    assert all(readings[name] <= 100.0 for name in ("memory_pct", "disk_pct", "cpu_pct"))


@pytest.mark.parametrize(
    ("option", "value", "rule"),
    [
        ("disk_free", "2 checkpoints", "be a number of checkpoints such as '2x_checkpoint'"),
        ("memory_warn_pct", 0.0, r"be in \(0, 100\] or None, got 0.0"),
        ("memory_critical_pct", 80.0, None),
        ("load_per_cpu", -1.0, "be > 0 or None, got -1.0"),
        ("hysteresis_pct", 100.0, r"be in \[0, 100\), got 100.0"),
        ("samples", 0, "be >= 1, got 0"),
        ("period_s", 0.0, "be > 0, got 0.0"),
        ("on_critical", "panic", "be one of .*, got 'panic'"),
    ],
)
def test_thresholds_refuse_options_out_of_range(option: str, value: object, rule: str) -> None:
    """The message names the option, the rule and the value."""
    message = f"`{option}` must {rule}" if rule else "`memory_warn_pct` must be <= .*got 85.0"
    with pytest.raises(ValueError, match=message):
        ThresholdConfig(**{option: value})
