"""What this rank has done since the last averaging event."""

from __future__ import annotations

from typing import NamedTuple

import torch

from lightning_elche.control.reports import Report
from lightning_elche.control.schedule import Window
from lightning_elche.distributed.timing import StepTimer

__all__ = ["WindowTracker"]


class WindowTracker:
    """Counts and times the steps of one window.

    Args:
        timer: How to time steps.

    Attributes:
        sits_out: This rank's parameters are spoiled: it weighs nothing and adopts the average.
        is_idle: This rank trains nothing for the time being, whatever data it has: it agrees to
            meet at once.
        skipped: Batches that were handed out and not learnt.
        input_ms: Time spent waiting for data.
        throttle_ms: Time spent asleep to share the machine.
    """

    def __init__(self, timer: StepTimer) -> None:
        self._timer = timer
        self.weighs_samples = True  # else a rank that has trained at all weighs 1
        self.reset()

    def reset(self) -> None:
        """Start a new window."""
        self._timer.reset()
        self.batches = 0
        self.ahead_batches = 0  # of the next epoch
        self.optimizer_steps = 0
        self.waited_s = 0.0
        self._reported_ms = 0.0
        self._samples = 0
        self._ahead_samples = 0
        self._losses: list[torch.Tensor] = []
        self._num_losses = 0  # before the step under way
        self._learnt: list[_Batch] = []  # without those that were taken back
        self._num_reported = 0  # of them
        self._is_in_step = self._forgets_step = self._skips_step = False
        self._is_accumulating = False
        self.sits_out = self.is_idle = False
        self.skipped = self._redealt = 0
        self.input_ms = self.throttle_ms = 0.0

    def subtract(self, report: Report) -> None:
        """Start a new window with the steps that were made since `report` was taken."""
        self.batches -= report.batches
        self.ahead_batches -= report.ahead_batches
        self.optimizer_steps -= report.optimizer_steps
        self.waited_s = 0.0
        self._reported_ms += report.compute_ms
        self._samples -= report.samples
        self._ahead_samples -= report.ahead_samples
        del self._losses[: report.loss_count]
        del self._learnt[: self._num_reported]
        self._num_reported = 0
        # Spoiled since the report was taken, it has not sat out yet.
        self.sits_out = self.sits_out and not report.sits_out
        self.skipped -= report.skipped
        self._redealt -= report.redealt
        self.input_ms -= report.input_ms
        self.throttle_ms -= report.throttle_ms

    def begin_step(self) -> None:
        """Mark the begin of a training step."""
        self._timer.begin()
        self._is_in_step, self._forgets_step, self._skips_step = True, False, False
        self._num_losses = len(self._losses)

    def add_loss(self, loss: torch.Tensor) -> None:
        """Take in the loss of a step, without reading it from the device."""
        self._losses.append(loss.detach())

    def forget(self, batches: int) -> None:
        """Take back the latest batches that were learnt: they weigh nothing, nor do their losses.

        What was trained since the last report was taken can be taken back. Cost: O(batches).

        Args:
            batches: How many; the one under way is the latest.
        """
        if batches and self._is_in_step and not self._forgets_step:
            self._forgets_step = True
            batches -= 1
            del self._losses[self._num_losses :]
        first = max(self._num_reported, len(self._learnt) - batches)
        num_losses = sum(batch.num_losses for batch in self._learnt[first:])
        del self._learnt[first:]
        del self._losses[len(self._losses) - num_losses :]
        self._num_losses = min(self._num_losses, len(self._losses))

    def skip(self, batches: int) -> None:
        """Count the latest batches as not learnt; the step under way is not timed.

        Args:
            batches: As of `forget`; some may have been reported before.
        """
        self._skips_step = self._is_in_step
        self.forget(batches)
        self.skipped += batches

    def end_step(
        self,
        *,
        samples: int,
        is_optimizer_step: bool,
        is_ahead: bool = False,
        is_redealt: bool = False,
        optimizer_steps: int = 1,
    ) -> None:
        """Mark the end of a training step.

        Args:
            samples: Samples in the batch.
            is_optimizer_step: Whether optimizers were stepped, rather than gradients accumulated.
            is_ahead: Whether the batch belongs to the next epoch.
            is_redealt: Whether another rank was given it before, and has skipped it.
            optimizer_steps: How many times, if they were; several with manual optimization.
        """
        if not self._skips_step:
            self._timer.end()
        self._is_in_step = False
        if not self._forgets_step:
            self._learnt.append(_Batch(samples, len(self._losses) - self._num_losses))
        self.batches += 1
        self.optimizer_steps += optimizer_steps if is_optimizer_step else 0
        self._samples += samples
        self._redealt += is_redealt
        if is_ahead:
            self.ahead_batches += 1
            self._ahead_samples += samples
        self._is_accumulating = not is_optimizer_step

    def progress(self, *, is_drained: bool) -> Window:
        """Return what the schedule needs to know, without stopping the device."""
        return Window(
            steps=self.batches,
            compute_ms=self._timer.elapsed_ms() - self._reported_ms,
            is_drained=is_drained or self.is_idle,
            is_accumulating=self._is_accumulating and not self.is_idle,
        )

    def describe(self) -> dict[str, object]:
        """Return what this rank knows of the window at present; JSON-serialisable."""
        return {
            "batches": self.batches,
            "ahead_batches": self.ahead_batches,
            "optimizer_steps": self.optimizer_steps,
            "waited_ms": 1000.0 * self.waited_s,
        }

    def report(self) -> Report:
        """Return the counts and sums of the window, once all its steps have finished."""
        self._num_reported = len(self._learnt)
        learnt = sum(batch.samples for batch in self._learnt)
        weight = float(learnt if self.weighs_samples else self._num_reported > 0)
        return Report(
            batches=self.batches,
            ahead_batches=self.ahead_batches,
            optimizer_steps=self.optimizer_steps,
            samples=self._samples,
            ahead_samples=self._ahead_samples,
            weight=0.0 if self.sits_out else weight,
            compute_ms=self._timer.elapsed_ms(wait=True) - self._reported_ms,
            loss_sum=_sum(self._losses),
            loss_count=len(self._losses),
            sits_out=self.sits_out,
            skipped=self.skipped,
            redealt=self._redealt,
            input_ms=self.input_ms,
            throttle_ms=self.throttle_ms,
        )


class _Batch(NamedTuple):
    samples: int
    num_losses: int


def _sum(losses: list[torch.Tensor]) -> float:
    if not losses:
        return 0.0
    return float(torch.stack([loss.reshape(()) for loss in losses]).cpu().double().sum())
