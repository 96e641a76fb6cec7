"""Tells of incidents: events of the run, warnings, and signals to whoever wants them."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from dataclasses import asdict
from typing import TYPE_CHECKING

from lightning.pytorch.utilities import rank_zero_warn

from lightning_elche.callbacks.run_events import emit
from lightning_elche.control.recovery import Decision, Recovery, RecoveryPolicy
from lightning_elche.control.safety import SafetyLadder, SafetyLevel, SafetySignal, Transition
from lightning_elche.coordination.breaker import BreakerState
from lightning_elche.coordination.calls.publisher import Publisher
from lightning_elche.coordination.calls.worker import DeadlineWorker

if TYPE_CHECKING:
    from lightning.pytorch import Trainer

__all__ = ["Alarm", "Publish", "emit_repair"]

Publish = Callable[[SafetySignal], object]


class Alarm:
    """Brings changes of the safety level to the run's events, and on rank zero to `publish`.

    Args:
        trainer: Its fit is under way.
        ladder: Keeps the level.
        policy: How often and how long `publish` is called.
        publish: Called with each signal, on a thread of `worker`.
        worker: Its threads; `None` to start one for this fit.
    """

    def __init__(
        self,
        trainer: Trainer,
        ladder: SafetyLadder,
        policy: RecoveryPolicy,
        publish: Publish | None,
        worker: DeadlineWorker | None,
    ) -> None:
        self._trainer = trainer
        self._ladder = ladder
        self._halts = 0
        self._run = uuid.uuid4().hex
        self._worker = worker
        self._own_worker: DeadlineWorker | None = None
        self._publisher: Publisher[SafetySignal] | None = None
        if publish is not None and trainer.is_global_zero:
            if self._worker is None:
                self._worker = self._own_worker = DeadlineWorker()
            self._publisher = Publisher(
                publish,
                self._worker,
                timeout_s=policy.publish_timeout_s,
                per_min=policy.publish_per_min,
            )

    def tell(self, change: Transition | None, *, step: int) -> None:
        """Tell of a change of the level, if there is one.

        Args:
            change: As the ladder returned it.
            step: Optimizer step of this rank.
        """
        if change is None:
            return
        trainer = self._trainer
        signal = SafetySignal(
            level=int(change.level),
            previous=int(change.previous),
            cause=change.cause,
            step=step,
            epoch=trainer.current_epoch,
            rank=trainer.global_rank,
            run=self._run,
            wall_ms=1000.0 * time.time(),
        )
        emit("safety", **asdict(signal))
        is_end = change.level is SafetyLevel.HALT
        self._halts += is_end
        if change.level in (SafetyLevel.ELEVATED, SafetyLevel.CONSERVATIVE):
            rank_zero_warn(
                f"Safety level {change.level.name} at step {step}: {change.cause}. Look at the "
                "data and at the learning rate."
            )
        if self._publisher is not None:
            self._publisher.send(signal, must_go=is_end)

    def listen(self, *, step: int) -> None:
        """Take in what has become of signals; never waits.

        Args:
            step: Optimizer step of this rank.
        """
        if self._publisher is None:
            return
        for event in self._publisher.poll():
            emit(
                event.kind,
                severity="critical",
                level=event.signal.level,
                error_type=event.error_type,
                error=event.error,
                waited_ms=event.waited_ms,
            )
            if event.error_type == "WorkerBusy":
                cause = f"the worker takes no signals: {event.error}"
                self.tell(self._ladder.cannot_publish(cause), step=step)
            elif event.breaker_state is BreakerState.OPEN:
                cause = f"signals are not delivered: {event.error_type}: {event.error}"
                self.tell(self._ladder.cannot_publish(cause), step=step)
        if self._own_worker is not None:
            for timeout in self._own_worker.take_timeouts():
                emit("task_timeout", **asdict(timeout))

    def reset(self) -> None:
        """Try again to deliver signals."""
        if self._publisher is not None:
            self._publisher.reset()

    def close(self, *, step: int) -> None:
        """Wait until what is on its way has arrived or timed out, and let go of threads.

        Args:
            step: Optimizer step of this rank.
        """
        if self._publisher is not None:
            self._publisher.flush()
            self.listen(step=step)
        if self._own_worker is not None:
            self._own_worker.close(0.0)

    def metrics(self) -> dict[str, float]:
        """Return what is logged, by name."""
        metrics = {
            "emergency/level": float(self._ladder.level),
            "emergency/halts": float(self._halts),
            "emergency/conservative": float(self._ladder.mode == "conservative"),
            "emergency/failed_epochs": float(self._ladder.failed_epochs),
        }
        if self._publisher is not None:
            stats = self._publisher.stats()
            metrics |= {f"emergency/{name}": value for name, value in stats.items()}
        if self._worker is not None:
            metrics |= {f"worker/{name}": float(n) for name, n in self._worker.stats().items()}
            metrics |= {f"timeout/{name}": n for name, n in self._worker.timeouts().items()}
        return metrics


def emit_repair(trainer: Trainer, recovery: Recovery, decision: Decision, **facts: object) -> None:
    """Tell of a repair in the run's events.

    Args:
        trainer: Trains.
        recovery: Has decided.
        decision: What.
        **facts: More of it.
    """
    emit(
        "rollback",
        rank=trainer.global_rank,
        epoch=trainer.current_epoch,
        incident=recovery.incidents,
        is_new=decision.is_new,
        snapshot=decision.reason,
        lr_scale=recovery.lr_scale,
        **facts,
    )
