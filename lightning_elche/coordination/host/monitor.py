"""Looks at the machine of a run once a second, beside the training."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from lightning_elche.coordination.host.gauges import DISK_FREE, Gauge
from lightning_elche.coordination.host.levels import Level
from lightning_elche.coordination.host.trend import Trend

__all__ = ["HostAlert", "HostMonitor"]

log = logging.getLogger(__name__)

CLOSE_TIMEOUT_S = 5.0


@dataclass(frozen=True, kw_only=True)
class HostAlert:
    """A number of the machine that is at another level, or that can no longer be read.

    Attributes:
        gauge: Its name, such as "memory_pct".
        level: The level it is at now.
        value: The number; `None` if it is unknown.
        reason: Why it is unknown, else nothing.
    """

    gauge: str
    level: Level
    value: float | None
    reason: str = ""

    def __str__(self) -> str:
        if self.value is None:
            return f"`{self.gauge}` cannot be read: {self.reason}"
        return f"`{self.gauge}` is {self.level.name}, at {self.value:.6g}"


class HostMonitor:
    """Reads gauges, and tells when one changes its level.

    A gauge that fails is unknown, told once until it works again, and keeps its level.

    Args:
        gauges: What to read.
        on_alert: Told of each change, in the thread that looks; what it raises ends nothing.
        period_s: Seconds between two looks.
        clock: Seconds that only grow.
    """

    def __init__(
        self,
        gauges: Iterable[Gauge],
        on_alert: Callable[[HostAlert], None],
        *,
        period_s: float = 1.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._gauges, self._on_alert = tuple(gauges), on_alert
        self._period_s, self._clock = period_s, clock
        self._values: dict[str, float | None] = {}
        self._unknown: set[str] = set()
        self._disk = Trend()
        self._over = threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def levels(self) -> dict[str, Level]:
        """The level of each gauge."""
        return {gauge.name: gauge.watch.level for gauge in self._gauges}

    @property
    def disk_full_s(self) -> float | None:
        """In how many seconds the disk is full if things go on so; `None` if none is in sight."""
        return self._disk.time_to_zero_s()

    def readings(self) -> dict[str, float | None]:
        """Return the latest number of each gauge; `None` where it is unknown."""
        return dict(self._values)

    def look(self) -> None:
        """Read all gauges once."""
        for gauge in self._gauges:
            try:
                value = gauge.read()
            except Exception as err:  # whatever a driver or a file system may raise
                self._values[gauge.name] = None
                self._tell_unknown(gauge, err)
                continue
            self._values[gauge.name] = value
            self._unknown.discard(gauge.name)
            if value is not None:
                self._judge(gauge, value)

    def start(self) -> None:
        """Look from now on, on a thread that does not keep the process alive."""
        self._thread = threading.Thread(target=self._run, name="elche-host", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the thread; it is left behind if a gauge hangs."""
        self._over.set()
        if self._thread is not None:
            self._thread.join(CLOSE_TIMEOUT_S)

    def _run(self) -> None:
        self.look()
        while not self._over.wait(self._period_s):
            self.look()

    def _judge(self, gauge: Gauge, value: float) -> None:
        if gauge.name == DISK_FREE:
            self._disk.add(self._clock(), value)
        before = gauge.watch.level
        level = gauge.watch.add(gauge.pressure(value))
        if level is not before:
            self._tell(HostAlert(gauge=gauge.name, level=level, value=value))

    def _tell_unknown(self, gauge: Gauge, err: Exception) -> None:
        if gauge.name in self._unknown:
            return
        self._unknown.add(gauge.name)
        level, reason = gauge.watch.level, f"{type(err).__name__}: {err}"
        self._tell(HostAlert(gauge=gauge.name, level=level, value=None, reason=reason))

    def _tell(self, alert: HostAlert) -> None:
        try:
            self._on_alert(alert)
        except Exception:  # the machine is watched all the same
            log.exception("Nobody was told that %s.", alert)
