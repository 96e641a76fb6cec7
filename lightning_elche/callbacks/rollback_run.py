"""One fit that is rolled back after bad batches: what this rank keeps, judges and repairs."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from lightning_elche.callbacks.rollback_alarm import Alarm, emit_repair
from lightning_elche.callbacks.rollback_disk import disk_tier_of
from lightning_elche.callbacks.rollback_ending import CautiousSave, Ending
from lightning_elche.callbacks.rollback_judge import Judge
from lightning_elche.callbacks.rollback_state import keeping_epoch_schedules, live_state
from lightning_elche.callbacks.rollback_tally import Tally
from lightning_elche.control.recovery import Decision, Recovery, Stage
from lightning_elche.control.safety import SafetyLadder
from lightning_elche.control.spike import SpikeDetector
from lightning_elche.ops.lr_hook import StepScale
from lightning_elche.ops.ring import Ring, RingConfig, Slot

if TYPE_CHECKING:
    from lightning.pytorch import Trainer

__all__ = ["RollbackRun"]


class RollbackRun:
    """Takes snapshots, judges batches and undoes bad ones; what it needs outlives it.

    Where ranks make the same steps, all of them judge alike and restore the same step. Between
    averaging events each rank is on its own.

    Args:
        trainer: About to train; every rank creates this at the same point.
        ring: Which snapshots to keep.
        detector: Judges losses.
        recovery: Decides what to restore.
        ladder: Keeps the safety level.
        alarm: Tells of it.
        state_key: Of the callback, in checkpoints.
        steps: Optimizer steps before this fit.

    Attributes:
        steps: Optimizer steps of this rank, without those that were undone.
        batches: Batches that this rank has begun.
        ending: How the run ends, if it cannot be repaired.
        is_sitting_out: Whether nothing is judged until the next averaging event.
        last_decision: What was done about the last bad batch.
        cautious_save: The checkpoint of a run that takes no more risks.
        tally: Counts.
    """

    def __init__(
        self,
        trainer: Trainer,
        *,
        ring: RingConfig,
        detector: SpikeDetector,
        recovery: Recovery,
        ladder: SafetyLadder,
        alarm: Alarm,
        state_key: str,
        steps: int = 0,
    ) -> None:
        self.trainer, self.strategy = trainer, trainer.strategy
        self.recovery, self.ladder, self.alarm = recovery, ladder, alarm
        self.is_local = bool(getattr(self.strategy, "is_running", False))
        agrees = trainer.world_size > 1 and not self.is_local
        self._policy = recovery.policy
        self.ending = Ending(trainer, recovery.policy, ladder, alarm)
        self.cautious_save = CautiousSave(trainer, ladder)
        self.ring = Ring(ring, live_state(trainer, detector), recovery.to_evict)
        self.scale = StepScale(trainer.optimizers)
        self.scale.scale = recovery.lr_scale
        recovery.begin_round()
        self._judge = Judge(trainer, detector, self.ring, agrees=agrees)
        self.steps = steps
        self.batches = 0
        self.tally = Tally()
        self.is_sitting_out = False
        self.last_decision: Decision | None = None
        self._own_steps = 0  # undone ones included
        self._log_every = trainer.log_every_n_steps  # type: ignore[attr-defined]  # set by a connector
        self._since_put = ring.every
        self._has_stepped = False
        self._is_window_start = True
        self._is_in_batch, self._repaired_at = False, -1
        self._sound_step = trainer.global_step  # checkpoints up to it are from before any damage
        self._state_key = state_key
        self.disk = disk_tier_of(trainer, self._policy, self.tally)

    # Batch by batch

    def begin_batch(self) -> None:
        """Take a snapshot if one is due; not while gradients are accumulated."""
        is_due = self._since_put >= self.ring.config.every
        if is_due and self._is_window_start and not (self.ending.is_over or self.is_sitting_out):
            self.put()
        self.batches += 1
        self._is_in_batch = True

    def put(self, *, event: int = -1) -> Slot | None:
        """Take a snapshot.

        Args:
            event: The averaging event that has just taken place, -1 for none.
        """
        began = time.perf_counter()
        slot = self.ring.put(
            step=self.steps,
            batch=self.batches,
            undone=self.tally.undone,
            event=event,
            global_step=self.trainer.global_step,
        )
        if slot is not None:
            self._since_put = 0
            self.tally.put_ms = 1000.0 * (time.perf_counter() - began)
        return slot

    def put_soon(self) -> None:
        """Take a snapshot before the next batch."""
        self._since_put = self.ring.config.every

    def before_step(self) -> None:
        """Take note that an optimizer is about to step."""
        self._has_stepped = True

    def end_batch(self, outputs: Any) -> None:  # noqa: ANN401  # whatever a step returned
        """Judge the batches since the last check if it is time, and undo what was bad.

        Args:
            outputs: As in `Callback.on_train_batch_end`.

        Raises:
            RecoveryHalted: If it cannot be undone.
            ValueError: If a step does not return the monitored value.
        """
        self._is_in_batch = False
        self._is_window_start = self._has_stepped
        if self._has_stepped:
            self._has_stepped = False
            self.steps += 1
            self._own_steps += 1
            self._since_put += 1
            if self._own_steps % self._log_every == 0:
                self._log()
        if self.ending.is_over or self.is_sitting_out:
            return
        is_last = self.trainer.is_last_batch
        if self._judge.add(outputs) or is_last:
            self.check(is_last=is_last)

    def check(self, *, is_last: bool = False) -> None:
        """Judge the batches since the last check, and undo what was bad.

        Args:
            is_last: Look at the parameters as well, since a validation or a checkpoint follows.

        Raises:
            RecoveryHalted: If it cannot be undone.
        """
        verdict = self._judge.verdict(is_last=is_last)
        if verdict.is_bad:
            self._recover(verdict.cause)
        elif verdict.has_value:
            self.recovery.healthy()
            for slot in self.ring.slots:
                if slot.batch < self.batches:
                    slot.stage = Stage.CONFIRMED
                    self._sound_step = slot.global_step
            if self.trainer.world_size == 1 and self.cautious_save.is_due():
                self.cautious_save.save()
        self.alarm.listen(step=self.steps)

    # What is bad

    def offer(self) -> bool:
        """Return whether a step with a value that is not finite is undone, or will be."""
        if self.ending.is_over:
            return False
        # After a batch, its numbers may still be those of the one before.
        is_repaired = not self._is_in_batch and self.batches - self._repaired_at <= 1
        if self.is_sitting_out or is_repaired:
            return True
        if not self.recovery.may_restore(self.ring.slots, step=self.steps):
            return False
        self._judge.report()
        return True

    def _recover(self, cause: str) -> None:
        slots = list(self.ring.slots)
        decision = self.last_decision = self.recovery.bad(slots, step=self.steps)
        slot = None if decision.index is None else slots[decision.index]
        if decision.action == "restore":
            assert slot is not None
            self.restore(slot, decision, cause)
        elif decision.action == "lacks" and self.is_local:
            self._sit_out(decision, cause, self.ring.earlier[-1] if self.ring.earlier else slot)
        elif decision.action == "lacks":
            self._restore_older(decision, cause, slot)
        else:
            self.halt(f"{decision.reason}: {cause}", slot)

    def _restore_older(self, decision: Decision, cause: str, slot: Slot | None) -> None:
        undone = self.tally.undone
        if self.restore_from_disk(decision, cause, slot):
            return
        is_late = self.disk is not None and self.disk.is_late
        if slot is None or self._policy.halt_on_deadline or not is_late:
            self.halt(f"{decision.reason}: {cause}", slot)
            return
        self.tally.restores += 1
        self._tell(decision, cause, tier="ram", undone=self.tally.undone - undone)
        self.recovery.begin_round()  # a bad batch now is an incident of its own
        self.alarm.tell(self.ladder.missed_deadline(), step=self.steps)

    def restore(self, slot: Slot, decision: Decision, cause: str) -> None:
        """Go back to a snapshot.

        Args:
            slot: It.
            decision: Why this one.
            cause: What was bad.
        """
        undone = self._put_back(slot)
        if self.is_local:
            self.strategy.forget(undone)  # type: ignore[attr-defined]  # ElCheStrategy
        self.tally.restores += 1
        self._tell(decision, cause, tier="ram", undone=undone)

    def restore_from_disk(self, decision: Decision, cause: str, slot: Slot | None) -> bool:
        """Go back to a checkpoint if there is one from before the damage, and return whether."""
        if self.disk is None:
            return False
        steps = self.steps
        if slot is not None:
            self._put_back(slot)  # for the sake of buffers that no checkpoint holds
        disk = self.disk
        restore = disk.restore_between_events if self.is_local else disk.restore
        state = restore(at_most=self._sound_step)
        if state is None:
            return False
        if not self.is_local:
            self.steps = state["callbacks"][self._state_key]["effective_step"]
        self.ring.clear()
        self.recovery.begin_round()
        self.put_soon()
        self._is_window_start, self._repaired_at = True, self.batches
        self._judge.reset()
        self.scale.scale = self.recovery.lr_scale
        self._tell(decision, cause, tier="disk", undone=steps - self.steps)
        self.alarm.tell(self.ladder.used_disk(), step=self.steps)
        return True

    def _put_back(self, slot: Slot) -> int:
        """Restore a snapshot and return the number of batches that this undoes."""
        began = time.perf_counter()
        if self.is_local:
            # Learning rates follow the steps of all ranks there.
            self.ring.restore(slot, keep_schedules=True)
        else:
            with keeping_epoch_schedules(self.trainer):
                self.ring.restore(slot)
        # Some of the batches since may have been undone before.
        undone = (self.batches - slot.batch) - (self.tally.undone - slot.undone)
        self.tally.undone += undone
        self.steps = slot.step
        self._since_put = 0
        self._repaired_at = self.batches
        self._judge.reset()
        self.scale.scale = self.recovery.lr_scale
        self.tally.restore_ms = 1000.0 * (time.perf_counter() - began)
        return undone

    def _sit_out(self, decision: Decision, cause: str, slot: Slot | None) -> None:
        """Have no say in the next average, and adopt it."""
        self.tally.failures += 1
        # For the sake of optimizer states; parameters will be the average.
        undone = 0 if slot is None else self._put_back(slot)
        self.strategy.sit_out()  # type: ignore[attr-defined]  # ElCheStrategy
        self.is_sitting_out = True
        self._tell(decision, cause, tier="average", undone=undone)

    def _tell(self, decision: Decision, cause: str, *, tier: str, undone: int) -> None:
        facts = {"step": self.steps, "cause": cause, "tier": tier, "undone_batches": undone}
        emit_repair(self.trainer, self.recovery, decision, **facts)
        recent = self.recovery.recent(self.steps)
        self.alarm.tell(self.ladder.incident(recent=recent), step=self.steps)

    def halt(self, reason: str, slot: Slot | None) -> None:
        """End the run, with what is sound in memory; every rank calls this at the same step.

        Between averaging events only this rank does, and the others hear of it at the next one.

        Args:
            reason: Why.
            slot: What is sound; `None` if there is nothing.

        Raises:
            RecoveryHalted: If that is what the policy says, and all ranks know.
        """
        if slot is not None:
            self._put_back(slot)
        elif self.is_local:
            self.strategy.sit_out()  # type: ignore[attr-defined]  # ElCheStrategy
        self.tally.failures += 1
        self.ending.end(reason, step=self.steps, is_poisoned=slot is None)
        if not self.is_local:
            self.ending.raise_halted()

    # Epochs, and the end

    def end_epoch(self) -> None:
        """Take in the end of an epoch; every rank calls this at the same point.

        Raises:
            RecoveryHalted: If too many epochs in a row had an incident.
        """
        ladder = self.ladder
        if self.trainer.world_size > 1:
            # The order on every rank: whether one had an incident, whether one wants a checkpoint.
            agree = self.strategy.reduce_boolean_decision
            ladder.had_incident = agree(ladder.had_incident, all=False)
            if not self.is_local and agree(self.cautious_save.is_due(), all=False):
                self.cautious_save.save()
        self.alarm.tell(ladder.end_epoch(), step=self.steps)
        self._is_window_start = True
        if ladder.has_failed_too_often and not self.ending.is_over:
            reason = f"{ladder.failed_epochs} epochs in a row had an incident"
            self.ending.end(reason, step=self.steps, is_poisoned=self.is_sitting_out)
            self.ending.raise_halted()

    def close(self) -> None:
        """Let go of optimizers and threads."""
        self.scale.close()
        self.alarm.close(step=self.steps)
        if self.disk is not None:
            self.disk.close()

    def _log(self) -> None:
        trainer = self.trainer
        if trainer.is_global_zero and trainer.loggers:
            metrics = self.tally.metrics(self.ring, self.recovery) | self.alarm.metrics()
            for logger in trainer.loggers:
                logger.log_metrics(metrics, step=trainer.global_step)
