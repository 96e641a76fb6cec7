"""One fit that is coordinated: its folder, its state, its parts, and what it tells of itself."""

from __future__ import annotations

import logging
import os
import socket
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightning.pytorch.utilities import rank_zero_warn

from lightning_elche.callbacks.coordination_parts import Calls, build_parts, calls_of
from lightning_elche.callbacks.run_events import emit, subscribe
from lightning_elche.callbacks.run_folder import run_folder
from lightning_elche.callbacks.timeline_log import attach, release
from lightning_elche.coordination.engines import find_engines, grace_warnings
from lightning_elche.coordination.health import Health, Pulse, healthz, is_ready, summary
from lightning_elche.coordination.lifecycle import Lifecycle, RunState
from lightning_elche.coordination.registry.config import default_folder
from lightning_elche.coordination.registry.place import open_registry
from lightning_elche.coordination.router import EVERYTHING, EventRouter, Subscriber
from lightning_elche.coordination.run_index import add_run, remove_run
from lightning_elche.coordination.run_lock import RunLock
from lightning_elche.coordination.status import STATUS_NAME, STATUS_VERSION, StatusWriter
from lightning_elche.coordination.systemd import SystemdNotifier
from lightning_elche.distributed.control_store import ControlStore, default_store

if TYPE_CHECKING:
    from lightning.pytorch import LightningModule, Trainer

    from lightning_elche.callbacks.run_stopper import RunStopper
    from lightning_elche.coordination.component import Component
    from lightning_elche.coordination.config import CoordinationConfig
    from lightning_elche.coordination.registry.request import GrantsLeases
    from lightning_elche.coordination.stopping.run_control import RunControl
    from lightning_elche.coordination.stopping.shutdown import ShutdownPlan
    from lightning_elche.timeline.events import EventLog

__all__ = ["CoordinationRun"]

log = logging.getLogger(__name__)

DECISIONS = 50
WATCHDOG_SHARE = 0.5


class CoordinationRun:
    """One fit. Every rank has one, made at the same point in `setup`; rank zero writes the files.

    Args:
        trainer: Of the fit.
        config: All options, complete.
        registry: Grants leases; `None` for the one that `config` names.
        subscribers: Kinds of events, and what to call with each.
        environment: As `os.environ`.

    Raises:
        RuntimeError: On all ranks, if another run writes to the same folder.
    """

    def __init__(
        self,
        trainer: Trainer,
        config: CoordinationConfig,
        *,
        registry: GrantsLeases | None,
        subscribers: Sequence[tuple[str, Subscriber]],
        environment: Mapping[str, str],
    ) -> None:
        self.trainer, self.config, self._registry = trainer, config, registry
        self.environment = environment
        self.clock: Callable[[], float] = time.monotonic
        self.folder = run_folder(trainer)
        self._lock = RunLock(self.folder)
        self.on_rank_zero(self._lock.take)
        self.engines = find_engines(environment, sys.modules)
        self.pulse = Pulse(self.clock)
        self.lifecycle = Lifecycle("run", self.clock)
        self._changing = threading.Lock()
        self._error = ""
        self._started_at = time.time()
        self._decisions: deque[dict[str, object]] = deque(maxlen=DECISIONS)
        self.router = EventRouter(claim=_first_to_tell(trainer, self.folder))
        for kind, fn in ((EVERYTHING, self._note), *subscribers):
            self.router.subscribe(kind, fn)
        self._forget = subscribe(self.router.receive)
        self._systemd = SystemdNotifier(environment if trainer.is_global_zero else {})
        self._writer: StatusWriter | None = None
        self.parts: tuple[Component, ...] = ()
        self._stopper: RunStopper | None = None
        self._log: EventLog | None = None

    @property
    def plan(self) -> ShutdownPlan:
        """What is done when the run is stopped; `add` a step before that.

        Raises:
            RuntimeError: If the run has not begun.
        """
        if self._stopper is None:
            raise RuntimeError("`plan` exists once the run has begun.")
        return self._stopper.plan

    @property
    def control(self) -> RunControl:
        """What this rank was asked for; a stop, a pause or a checkpoint can be asked for here.

        Raises:
            RuntimeError: If the run has not begun.
        """
        if self._stopper is None:
            raise RuntimeError("`control` exists once the run has begun.")
        return self._stopper.control

    @property
    def is_shared(self) -> bool:
        """Whether anything of the run is kept outside of its folder, since somebody wants that."""
        place = self.config.registry.folder
        is_named = place != str(default_folder(self.environment))
        return is_named or self.config.limits.admission != "none"

    def open_registry(self) -> GrantsLeases:
        """Return the registry, the same one each time."""
        if self._registry is None:
            self._registry = open_registry(self.config)
        return self._registry

    def start(self, pl_module: LightningModule, stage: str) -> Calls:
        """Set up the parts and return their hooks; every rank calls this at the same point."""
        for warning in grace_warnings(self.engines, self.config.stop.grace_s):
            rank_zero_warn(warning)
        self._log = attach(self.trainer)
        self.parts, self._stopper = build_parts(self)
        for part in self.parts:
            part.start(self.trainer, pl_module, stage)
        self.to(RunState.READY)
        self.on_rank_zero(self._begin_to_tell)
        return calls_of(self.parts)

    def write_events(self) -> None:
        """Write the events that wait to be, since the process is about to be ended."""
        if self._log is not None:
            self._log.write()

    def _begin_to_tell(self) -> None:
        period_s, watchdog_s = self.config.export.status_period_s, self._systemd.watchdog_s
        if watchdog_s is not None:
            period_s = min(period_s, WATCHDOG_SHARE * watchdog_s)
        path = self.folder / STATUS_NAME
        self._writer = StatusWriter(path, self.status, period_s=period_s, after=self._feed)
        self._writer.start()
        if self.is_shared:
            add_run(self._shared, str(self.folder), started_at=self._started_at)

    def run(self) -> None:
        """Take in that training begins."""
        self.to(RunState.RUNNING)
        self.pulse.touch()
        self._systemd.ready()

    def close(
        self,
        pl_module: LightningModule,
        stage: str,
        *,
        exception: BaseException | None = None,
    ) -> None:
        """Take down the parts, last first, and write the status a last time.

        Args:
            pl_module: Of the fit.
            stage: Of the fit.
            exception: What it ended with.
        """
        is_failed = isinstance(exception, Exception)
        if exception is not None:
            self._error = f"{type(exception).__name__}: {exception}" if is_failed else ""
        self._systemd.stopping()
        self.to(RunState.ERROR if is_failed else RunState.DRAINING)
        for part in self.parts if exception is not None else ():
            part.tell("on_exception", self.trainer, pl_module, exception)
        for part in reversed(self.parts):
            part.close(self.trainer, pl_module, stage)
        if not is_failed:
            self.to(RunState.STOPPED)
        emit("stopped", state=self.lifecycle.state.name, error=self._error)
        self._forget()
        if self._log is not None:
            release(self.trainer)
        if self._writer is not None:
            self._writer.close()
            if self.is_shared:
                remove_run(self._shared, str(self.folder))
        self._lock.release()

    @property
    def _shared(self) -> Path:
        return Path(self.config.registry.folder or default_folder(self.environment))

    def to(self, state: RunState) -> None:
        """Go to a state, if that may follow the present one."""
        with self._changing:
            if self.lifecycle.state is RunState.INITIALIZING and state is RunState.DRAINING:
                state = RunState.STOPPED
            self.lifecycle.to(state)

    # What it tells of itself; called from other threads

    def status(self) -> dict[str, object]:
        """Return what `status.json` holds."""
        self._follow_control()
        state, trainer = self.lifecycle.state, self.trainer
        found: dict[str, Any] = summary(state, self.health(), [one.stats() for one in self.parts])
        for part in self.parts:
            found["components"][part.name]["status"] = part.status()
        return {
            "version": STATUS_VERSION,
            "run": str(self.folder),
            "pid": os.getpid(),
            "host": socket.gethostname(),
            "written_at": time.time(),
            "started_at": self._started_at,
            "uptime_s": round(self.pulse.uptime_s, 2),
            **found,
            "ready": is_ready(state),
            "error": self._error,
            "strategy": type(trainer.strategy).__name__,
            "world_size": trainer.world_size,
            "epoch": trainer.current_epoch,
            "global_step": trainer.global_step,
            "batches": self.pulse.beats,
            "batch_s": self.pulse.median_s(),
            "beat_age_s": round(self.pulse.age_s, 3),
            "engines": sorted(engine.name for engine in self.engines),
            "events": self.router.counts(),
            "decisions": list(self._decisions),
        }

    def health(self) -> Health:
        """Return whether the run moves on."""
        pulse = self.pulse
        return healthz(
            self.lifecycle.state, beats=pulse.beats, age_s=pulse.age_s, median_s=pulse.median_s()
        )

    def is_ready(self) -> bool:
        """Return whether the run trains, or pauses and would."""
        return is_ready(self.lifecycle.state)

    def _follow_control(self) -> None:
        """Be PAUSED while the ranks wait, and DRAINING once they are to stop."""
        if self._stopper is None:
            return
        control = self._stopper.control
        wanted = RunState.PAUSED if control.is_paused else RunState.RUNNING
        if control.stop:
            wanted = RunState.DRAINING
        with self._changing:  # the training thread may be at the end of the run
            was_paused = self.lifecycle.state is RunState.PAUSED
            has_changed = self.is_ready() and self.lifecycle.to(wanted)
        if has_changed and was_paused and wanted is RunState.RUNNING:
            emit("resumed")

    def _feed(self) -> None:
        if self.health().ok:
            self._systemd.alive()

    def _note(self, kind: str, data: dict[str, object]) -> None:
        if kind != "average":  # of which there are too many
            self._decisions.append({"at": round(time.time(), 3), "kind": kind, **data})

    def on_rank_zero(self, do: Callable[[], object]) -> None:
        """Call a function on rank zero; what it raises ends the run on all ranks.

        Every rank calls this at the same point; the others would wait for rank zero otherwise.

        Raises:
            RuntimeError: On the other ranks, with the same words.
        """
        error: Exception | None = None
        if self.trainer.is_global_zero:
            try:
                do()
            except Exception as err:
                error = err
        words = self.trainer.strategy.broadcast("" if error is None else str(error))
        if error is not None:
            raise error
        if words:
            raise RuntimeError(words)


def _first_to_tell(trainer: Trainer, folder: Path) -> Callable[[str], bool] | None:
    """Return what says whether this rank is the first of all to tell of something."""
    if trainer.world_size == 1:
        return None
    store = ControlStore(default_store(), f"alerts/{folder}")

    def is_first(digest: str) -> bool:
        try:
            return store.add(f"{digest}/{int(time.time() / 30.0)}", 1) == 1
        except RuntimeError:  # rank 0 is gone, and with it whoever might have told
            return True

    return is_first
