"""Tells when the machine of a run is short of something, and lets the run pause or stop for it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lightning.pytorch.utilities import rank_zero_warn

from lightning_elche.callbacks.host_gpu import gpu_signal
from lightning_elche.callbacks.run_events import emit
from lightning_elche.control.requests import StopCause
from lightning_elche.coordination.host.gauges import ACTING, gauges_of
from lightning_elche.coordination.host.levels import Level
from lightning_elche.coordination.host.monitor import HostAlert, HostMonitor

if TYPE_CHECKING:
    from lightning.pytorch import Trainer

    from lightning_elche.callbacks.host_saves import SaveWatch
    from lightning_elche.coordination.host.thresholds import ThresholdConfig
    from lightning_elche.coordination.stopping.run_control import RunControl

__all__ = ["HostWatch"]


class HostWatch:
    """Watches the machine in a fit; one rank of each does.

    Args:
        trainer: About to train.
        config: Limits.
        saves: Knows how large checkpoints are, and where they go.
        control: Stops and pauses the run; `None` if nothing does.
    """

    def __init__(
        self,
        trainer: Trainer,
        config: ThresholdConfig,
        saves: SaveWatch,
        control: RunControl | None,
    ) -> None:
        self._config, self._control = config, control
        self._critical: set[str] = set()
        if config.on_critical != "alert" and control is None:
            rank_zero_warn(
                f"`on_critical` is {config.on_critical!r}, which takes `ElCheStrategy`: with "
                f"{type(trainer.strategy).__name__} too little disk or memory is only told."
            )
        self.monitor = HostMonitor(
            gauges_of(
                config,
                folder=lambda: saves.folder,
                checkpoint_bytes=lambda: saves.last_bytes,
                gpu=gpu_signal(trainer.strategy.root_device, "gpu"),
            ),
            self.take,
            period_s=config.period_s,
        )

    def take(self, alert: HostAlert) -> None:
        """Tell of a change, and act on it."""
        emit(
            "threshold",
            gauge=alert.gauge,
            level=alert.level.name,
            value=alert.value,
            message=str(alert),
        )
        if alert.gauge not in ACTING or alert.value is None:
            return
        if alert.level is Level.CRITICAL:
            self._critical.add(alert.gauge)
        else:
            self._critical.discard(alert.gauge)
        self._act(str(alert))

    def close(self) -> None:
        """Watch no more, and hold up nobody."""
        self.monitor.stop()
        if self._control is not None and self._critical and self._config.on_critical == "pause":
            self._control.request_pause(False)

    def status(self) -> dict[str, object]:
        """Return readings and levels; quick, from any thread."""
        return {
            "readings": self.monitor.readings(),
            "levels": {name: level.name for name, level in self.monitor.levels.items()},
            "disk_full_s": self.monitor.disk_full_s,
        }

    def _act(self, message: str) -> None:
        if self._control is None:
            return
        if self._config.on_critical == "pause":
            self._control.request_pause(bool(self._critical))
        elif self._config.on_critical == "stop" and self._critical:
            self._control.request_stop(StopCause.THRESHOLD, message)
