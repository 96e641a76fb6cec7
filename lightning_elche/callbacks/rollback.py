"""Undoes bad batches while a Trainer trains."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from lightning.pytorch import Callback
from lightning.pytorch.trainer.states import TrainerFn
from typing_extensions import override

from lightning_elche.callbacks.idle_hooks import leave_out_idle_hooks
from lightning_elche.callbacks.rollback_alarm import Alarm, Publish
from lightning_elche.callbacks.rollback_events import RollbackEvents
from lightning_elche.callbacks.rollback_run import RollbackRun
from lightning_elche.callbacks.rollback_state import check_callbacks, check_strategy, gates_of
from lightning_elche.control.recovery import Decision, Recovery, RecoveryPolicy
from lightning_elche.control.safety import SafetyLadder, SafetyLevel
from lightning_elche.control.spike import SpikeConfig, SpikeDetector
from lightning_elche.ops.ring import RingConfig

if TYPE_CHECKING:
    from collections.abc import Mapping

    import torch
    from lightning.pytorch import LightningModule, Trainer
    from torch import Tensor

    from lightning_elche.control.events import AveragingEvent
    from lightning_elche.coordination.calls.worker import DeadlineWorker

__all__ = ["Rollback"]


class Rollback(Callback):
    """Undoes a bad batch: parameters, optimizers, schedules and random numbers are as before it.

    Snapshots are kept in memory. A batch is bad if its loss is not finite or a spike, or if it has
    left values that are not finite in a snapshot. With the defaults, a run with one bad batch ends
    as one that never had it, bit for bit. Several ranks restore the same step; under ElCheStrategy
    each repairs itself, and what it has undone does not weigh in the average. It must stand before
    `GateTrain` and `WeightAveraging` in the list of callbacks.

    Args:
        ring: How many snapshots are kept, and how often they are taken.
        spike: What a bad batch looks like.
        policy: How far repairs may go.
        publish: Called on rank zero with a `SafetySignal` whenever the safety level changes, beside
            the training thread. What it raises is recorded, not raised.
        worker: Calls `publish`. Default: one of its own.

    Raises:
        ValueError: If an option is not valid.

    Example:
        >>> from lightning.pytorch import Trainer
        >>> from lightning_elche import RecoveryPolicy, RingConfig, Rollback, SpikeConfig
        >>> rollback = Rollback(
        ...     ring=RingConfig(every=20, depth=3),
        ...     spike=SpikeConfig(warmup_steps=50),
        ...     policy=RecoveryPolicy(lr_factor=0.5),
        ... )
        >>> trainer = Trainer(accelerator="cpu", callbacks=[rollback], logger=False)
    """

    def __init__(
        self,
        ring: RingConfig | None = None,
        spike: SpikeConfig | None = None,
        policy: RecoveryPolicy | None = None,
        *,
        publish: Publish | None = None,
        worker: DeadlineWorker | None = None,
    ) -> None:
        if worker is not None and publish is None:
            raise ValueError(
                "`worker` must come with `publish`, which it calls, got None for that."
            )
        self._ring = ring or RingConfig()
        self._detector = SpikeDetector(spike)
        self._recovery = Recovery(policy)
        self._ladder = SafetyLadder(max_failed_epochs=self._recovery.policy.max_failed_epochs)
        self._publish = publish
        self._worker = worker
        self._steps = 0
        self._last_decision: Decision | None = None
        self._run: RollbackRun | None = None
        self._events: RollbackEvents | None = None

    @property
    def level(self) -> SafetyLevel:
        """How worried one must be."""
        return self._ladder.level

    @property
    def mode(self) -> Literal["normal", "conservative"]:
        """Whether no further risks are taken."""
        return self._ladder.mode

    @property
    def effective_step(self) -> int:
        """Optimizer steps of this rank that were not undone."""
        return self._steps if self._run is None else self._run.steps

    @property
    def lr_scale(self) -> float:
        """What learning rates are multiplied by when they take effect."""
        return self._recovery.lr_scale

    @property
    def incidents(self) -> int:
        """How many bad batches, or rows of them, there were."""
        return self._recovery.incidents

    @property
    def last_decision(self) -> Decision | None:
        """What was done about the last bad batch of this fit, or of the one before."""
        return self._last_decision if self._run is None else self._run.last_decision

    def reset(self) -> None:
        """Forget all incidents: level, count, and scale of learning rates; signals may go again."""
        self._recovery.reset()
        change = self._ladder.reset()
        if self._run is not None:
            self._run.scale.scale = 1.0
            self._run.alarm.reset()
            self._run.alarm.tell(change, step=self._run.steps)

    def offer(self, step: int) -> bool:
        """Return whether a step with numbers that are not finite is undone, or will be.

        Args:
            step: As `GateTrain` counts.
        """
        del step  # the latest one, or the one before it
        return self._run is not None and self._run.offer()

    @override
    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        leave_out_idle_hooks(self)
        if stage == TrainerFn.FITTING:
            check_strategy(trainer.strategy)
            check_callbacks(trainer, self)
            for gate in gates_of(trainer):
                gate.recovery = self

    @override
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        policy = self._recovery.policy
        self._run = RollbackRun(
            trainer,
            ring=self._ring,
            detector=self._detector,
            recovery=self._recovery,
            ladder=self._ladder,
            alarm=Alarm(trainer, self._ladder, policy, self._publish, self._worker),
            state_key=self.state_key,
            steps=self._steps,
        )
        self._events = RollbackEvents(self._run) if self._run.is_local else None

    @override
    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        self.run.begin_batch()

    @override
    def on_before_optimizer_step(
        self, trainer: Trainer, pl_module: LightningModule, optimizer: torch.optim.Optimizer
    ) -> None:
        self.run.before_step()

    @override
    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Tensor | Mapping[str, Any] | None,
        batch: Any,
        batch_idx: int,
    ) -> None:
        self.run.end_batch(outputs)

    def on_average_end(self, event: AveragingEvent) -> None:
        """Called by ElCheStrategy on every rank."""
        if self._events is not None:
            self._events.on_average_end(event)

    @override
    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.run.end_epoch()

    @override
    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._close()

    @override
    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        self._close()

    @override
    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self._close()
        for gate in gates_of(trainer):
            gate.recovery = None

    def _close(self) -> None:
        run, self._run, self._events = self._run, None, None
        if run is not None:
            self._steps, self._last_decision = run.steps, run.last_decision
            run.close()

    @property
    def run(self) -> RollbackRun:
        """The present fit.

        Raises:
            RuntimeError: If there is none.
        """
        if self._run is None:
            raise RuntimeError("`run` exists only while `Trainer.fit` trains.")
        return self._run

    @override
    def state_dict(self) -> dict[str, Any]:
        return {
            "detector": self._detector.state_dict(),
            "recovery": self._recovery.state_dict(),
            "ladder": self._ladder.state_dict(),
            "effective_step": self.effective_step,
        }

    @override
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._detector.load_state_dict(state_dict["detector"])
        self._recovery.load_state_dict(state_dict["recovery"])
        self._ladder.load_state_dict(state_dict["ladder"])
        self._steps = state_dict["effective_step"]
