"""What this rank has done since the last averaging event."""

from __future__ import annotations

import torch

from lightning_elche.control.reports import Report
from lightning_elche.control.schedule import Window
from lightning_elche.distributed.timing import StepTimer

__all__ = ["WindowTracker"]


class WindowTracker:
    """Counts and times the steps of one window.

    Args:
        timer: How to time steps.
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
        self._loss: torch.Tensor | None = None
        self._loss_count = 0
        self._is_accumulating = False

    def subtract(self, report: Report) -> None:
        """Start a new window with the steps that were made since `report` was taken."""
        self.batches -= report.batches
        self.ahead_batches -= report.ahead_batches
        self.optimizer_steps -= report.optimizer_steps
        self.waited_s = 0.0
        self._reported_ms += report.compute_ms
        self._samples -= report.samples
        self._ahead_samples -= report.ahead_samples
        self._loss_count -= report.loss_count
        if self._loss is not None:
            self._loss = self._loss - report.loss_sum if self._loss_count else None

    def begin_step(self) -> None:
        """Mark the begin of a training step."""
        self._timer.begin()

    def add_loss(self, loss: torch.Tensor) -> None:
        """Take in the loss of a step, without reading it from the device."""
        self._loss = loss.detach() if self._loss is None else self._loss + loss.detach()
        self._loss_count += 1

    def end_step(
        self,
        *,
        samples: int,
        is_optimizer_step: bool,
        is_ahead: bool = False,
        optimizer_steps: int = 1,
    ) -> None:
        """Mark the end of a training step.

        Args:
            samples: Samples in the batch.
            is_optimizer_step: Whether optimizers were stepped, rather than gradients accumulated.
            is_ahead: Whether the batch belongs to the next epoch.
            optimizer_steps: How many times, if they were; several with manual optimization.
        """
        self._timer.end()
        self.batches += 1
        self.optimizer_steps += optimizer_steps if is_optimizer_step else 0
        self._samples += samples
        if is_ahead:
            self.ahead_batches += 1
            self._ahead_samples += samples
        self._is_accumulating = not is_optimizer_step

    def progress(self, *, is_drained: bool) -> Window:
        """Return what the schedule needs to know, without stopping the device."""
        return Window(
            steps=self.batches,
            compute_ms=self._timer.elapsed_ms() - self._reported_ms,
            is_drained=is_drained,
            is_accumulating=self._is_accumulating,
        )

    def report(self) -> Report:
        """Return the counts and sums of the window, once all its steps have finished."""
        return Report(
            batches=self.batches,
            ahead_batches=self.ahead_batches,
            optimizer_steps=self.optimizer_steps,
            samples=self._samples,
            ahead_samples=self._ahead_samples,
            weight=float(self._samples if self.weighs_samples else self.batches > 0),
            compute_ms=self._timer.elapsed_ms(wait=True) - self._reported_ms,
            loss_sum=0.0 if self._loss is None else float(self._loss),
            loss_count=self._loss_count,
        )
