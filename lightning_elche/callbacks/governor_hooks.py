"""How a run gets on with its machine: what is left of it, who else needs it, when it must go."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import rank_zero_warn

from lightning_elche.callbacks.host_durations import RunDurations
from lightning_elche.callbacks.host_link import LinkAdvice
from lightning_elche.callbacks.host_peak import PeakGuard
from lightning_elche.callbacks.host_saves import SaveWatch, state_bytes
from lightning_elche.callbacks.host_throttle import RankThrottle
from lightning_elche.callbacks.host_watch import HostWatch
from lightning_elche.callbacks.run_events import emit
from lightning_elche.callbacks.run_folder import run_folder
from lightning_elche.coordination.bandwidth.budget import BandwidthConfig
from lightning_elche.coordination.host.governor import GovernorConfig
from lightning_elche.coordination.host.targets import TargetConfig
from lightning_elche.coordination.host.thresholds import ThresholdConfig
from lightning_elche.coordination.schedule.deadline import find_deadline
from lightning_elche.coordination.schedule.measured import Measured
from lightning_elche.coordination.schedule.schedule import ScheduleConfig
from lightning_elche.strategies.checkpoint_io import PartitionCheckpointIO
from lightning_elche.strategies.throttled_io import ThrottledCheckpointIO

if TYPE_CHECKING:
    from lightning.pytorch import LightningModule, Trainer

    from lightning_elche.control.events import AveragingEvent
    from lightning_elche.coordination.schedule.durations import DurationStore
    from lightning_elche.coordination.stopping.run_control import RunControl
    from lightning_elche.strategies.uploads import Upload

__all__ = ["DRAIN_S", "HostHooks", "drain", "uploading_io"]

DRAIN_S = 60.0


class HostHooks:
    """Watches the machine of a run, throttles the run, estimates its end and knows its deadline.

    It has the hooks of a callback that it needs, and none else: without governor and deadline a
    step costs nothing.

    Args:
        thresholds: What is too little disk or memory.
        targets: How busy the machine should be.
        governor: How the run gives way.
        bandwidth: What averaging may take of a link.
        schedule: Deadline and peak hours.
        environment: As `os.environ`.
        durations: How long runs of this machine took; `None` if nobody keeps that.
        control: Returns what stops and pauses the run. Default: `control` of the strategy, where it
            has one.
        kind: Of the run, as `LimitsConfig.kind`.

    Attributes:
        checkpoint_times: Seconds that checkpoints of this fit took.
        window_times: Seconds between averaging events, or of steps where there are none.

    Raises:
        ValueError: If the environment names a deadline that is none.
    """

    def __init__(
        self,
        *,
        thresholds: ThresholdConfig | None = None,
        targets: TargetConfig | None = None,
        governor: GovernorConfig | None = None,
        bandwidth: BandwidthConfig | None = None,
        schedule: ScheduleConfig | None = None,
        environment: Mapping[str, str] | None = None,
        durations: DurationStore | None = None,
        control: Callable[[], RunControl] | None = None,
        kind: str = "train",
    ) -> None:
        self._thresholds = thresholds or ThresholdConfig()
        self._targets = targets or TargetConfig()
        self._governor = governor or GovernorConfig()
        self._bandwidth = bandwidth or BandwidthConfig()
        self._schedule = schedule or ScheduleConfig()
        self._store, self._control_of, self._kind = durations, control, kind
        self._deadline = find_deadline(
            self._schedule.deadline, environment or {}, margin_s=self._schedule.margin_s
        )
        self._peak = PeakGuard(self._schedule)
        self.checkpoint_times, self.window_times = Measured(), Measured()
        self._state_bytes = 0
        self._window_began_s = math.inf
        self._is_training = False
        self._saves: SaveWatch | None = None
        self._watch: HostWatch | None = None
        self._throttle: RankThrottle | None = None
        self._durations: RunDurations | None = None
        self._link: LinkAdvice | None = None

    @property
    def expected_s(self) -> float | None:
        """How long the fit will take in nine of ten cases; `None` before `setup`."""
        return None if self._durations is None else self._durations.estimate.p90_s

    # For who splits the machine

    @property
    def requested_duty(self) -> float | None:
        """The part of the time that this rank asks for; `None` if nothing holds it to a part."""
        throttle = self._throttle
        if throttle is None or not self._governor.enabled:
            return None
        return throttle.governor.requested

    def limit_duty(self, granted: float | None) -> None:
        """Let this rank take at most a part of the time, `None` for no limit; from any thread."""
        throttle = self._throttle
        if throttle is not None:
            throttle.governor.limit = granted

    # For who stops the run

    def deadline(self) -> tuple[float | None, str]:
        """Return when to stop, in seconds of `time.monotonic`, and why; `None` for never.

        It comes earlier when windows or checkpoints turn out to be longer; quick, from any thread.
        """
        if self._deadline is None:
            return None, ""
        now_s = time.monotonic()
        due = self._deadline.due_at(
            checkpoints=self.checkpoint_times,
            windows=self.window_times,
            under_way_s=max(0.0, now_s - self._window_began_s),
            checkpoint_bytes=self._state_bytes,
        )
        return now_s + due - time.time(), self._deadline.reason

    # Hooks

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Estimate how long the run takes, and get ready to throttle it."""
        if stage != TrainerFn.FITTING:
            return
        self._durations = RunDurations(
            trainer,
            pl_module,
            folder=run_folder(trainer),
            store=self._store,
            defaults_s=self._schedule.defaults_s,
            kind=self._kind,
        )
        self._state_bytes = state_bytes(pl_module)
        throttles = self._governor.enabled or self._peak.throttles
        if throttles:
            self._throttle = RankThrottle(
                trainer,
                self._governor,
                self._targets,
                control=lambda: self._control(trainer),
                is_on=lambda: self._governor.enabled or self._peak.is_peak(),
            )
            self.on_train_batch_start = self._throttle.on_train_batch_start
            _say_what_does_not_apply(trainer)
        if throttles or self._deadline is not None:
            self.on_train_batch_end = self._end_batch

    def on_fit_start(self, trainer: Trainer, *_: object) -> None:
        """Wait for the end of peak hours, if the run is to."""
        assert self._durations is not None
        stops = partial(_stops, partial(self._control, trainer))
        self._peak.begin(trainer, self._durations.estimate.p90_s, stops=stops)

    def on_train_start(self, trainer: Trainer, *_: object) -> None:
        """Begin to watch."""
        assert self._durations is not None
        self._durations.begin()
        folder = checkpoint_folder(trainer)
        self._saves = SaveWatch(trainer, folder, self.checkpoint_times)
        if trainer.local_rank == 0:
            control = self._control(trainer)
            self._watch = HostWatch(trainer, self._thresholds, self._saves, control)
            self._watch.monitor.start()
        if getattr(trainer.strategy, "is_running", False):
            self._link = LinkAdvice(trainer.strategy, self._bandwidth)
        io = uploading_io(trainer)
        if io is not None:
            io.uploads.on_done = _tell
        self._window_began_s = time.monotonic()
        self._is_training = True

    def _end_batch(self, *_: object) -> None:
        if self._link is None:  # without averaging events, a step is what a stop waits for
            began_s, self._window_began_s = self._window_began_s, time.monotonic()
            self.window_times.add(self._window_began_s - began_s)
        if self._throttle is not None:
            self._throttle.on_train_batch_end()

    def on_average_end(self, event: AveragingEvent) -> None:
        """Take in how long a window was."""
        longest_ms = max(report.compute_ms for report in event.reports)
        self.window_times.add((longest_ms + event.wait_ms + event.transfer_ms) / 1000.0)
        self._window_began_s = time.monotonic()
        if self._link is not None:
            self._link.on_average_end(event)

    def on_train_end(self, *_: object) -> None:
        """Record how long the fit took."""
        self._end(is_success=True)

    def on_exception(self, *_: object) -> None:
        """Record that the fit did not come to its end."""
        self._end(is_success=False)

    def teardown(self, *_: object) -> None:
        """Watch no more."""
        for part in (self._throttle, self._watch, self._saves):
            if part is not None:
                part.close()
        self._throttle = self._watch = self._saves = None

    def status(self) -> dict[str, object]:
        """Return what is known of machine and end; JSON-serialisable, quick, from any thread."""
        due_s, reason = self.deadline()
        parts = {"host": self._watch, "governor": self._throttle, "run": self._durations}
        return {
            **{name: part.status() for name, part in parts.items() if part is not None},
            "checkpoints": self.checkpoint_times.summary(),
            "windows": self.window_times.summary(),
            "averaging_floor_s": None if self._link is None else self._link.floor_s,
            "deadline_s": None if due_s is None else round(due_s - time.monotonic(), 1),
            "deadline": reason,
        }

    def _end(self, *, is_success: bool) -> None:
        if self._is_training and self._durations is not None:
            self._durations.end(is_success=is_success)
        self._is_training = False

    def _control(self, trainer: Trainer) -> RunControl | None:
        if self._control_of is not None:
            return self._control_of()
        return getattr(trainer.strategy, "control", None)


def uploading_io(trainer: Trainer) -> ThrottledCheckpointIO | None:
    """Return what uploads the checkpoints of a Trainer, `None` if nothing does."""
    io: object = trainer.strategy.checkpoint_io
    if isinstance(io, PartitionCheckpointIO):
        io = io.inner
    return io if isinstance(io, ThrottledCheckpointIO) else None


def drain(io: ThrottledCheckpointIO) -> None:
    """Wait for uploads.

    Raises:
        TimeoutError: If they are not over in time.
    """
    if not io.drain(DRAIN_S):
        raise TimeoutError(f"Uploads were not over within {DRAIN_S:g} seconds.")


def _tell(upload: Upload) -> None:
    facts = asdict(upload)
    emit("upload", **{**facts, "path": str(upload.path), "seconds": round(upload.seconds, 3)})


def _stops(control: Callable[[], RunControl | None]) -> bool:
    own = control()
    return own is not None and bool(own.stop)


def _say_what_does_not_apply(trainer: Trainer) -> None:
    if trainer.world_size > 1 and not hasattr(trainer.strategy, "control"):
        rank_zero_warn(
            f"With {type(trainer.strategy).__name__} all ranks wait for the one that sleeps most. "
            "With `ElCheStrategy` the others take over its batches."
        )


def checkpoint_folder(trainer: Trainer) -> Path:
    """Return where the callbacks of a Trainer save, as far as that is on a disk."""
    for callback in trainer.checkpoint_callbacks:
        folder = getattr(callback, "dirpath", None)
        if folder is not None and "://" not in str(folder):
            return Path(folder)
    return run_folder(trainer)
