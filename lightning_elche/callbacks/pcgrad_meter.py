"""How often tasks are in conflict, from one logging step to the next and over an epoch."""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass

import torch
from torch import Tensor

from lightning_elche.ops.projection import conflict_rate, conflicting_pairs

__all__ = ["PCGradMeter", "Surgery"]

AT_ONCE = 256  # scales read from the device together


@dataclass(frozen=True, kw_only=True)
class Surgery:
    """How the gradients of one backward pass, or of one window of batches, were combined.

    Attributes:
        names: One per task.
        gram: Inner products of the tasks' gradients.
        weights: What each gradient counts.
        num_projections: How often a gradient was projected.
        is_finite: Whether the inner products and the weights were finite.
        scale: What every gradient is multiplied by for the sake of precision; on its device.
    """

    names: tuple[str, ...]
    gram: list[list[float]]
    weights: list[float]
    num_projections: int
    is_finite: bool
    scale: Tensor


class PCGradMeter:
    """Takes notes of surgeries, and makes means of them.

    Those with values that are not finite are counted, and in no mean.

    Args:
        eps: As of `PCGrad`.
        per_task: As of `PCGrad`.

    Attributes:
        num_nonfinite: Surgeries with values that were not finite.
        num_skipped: Backward passes without surgery.
        epoch_sum: Conflict fractions of this epoch, added.
        epoch_count: How many those are.
    """

    def __init__(self, *, eps: float, per_task: bool) -> None:
        self._eps = eps
        self._per_task = per_task
        self.num_nonfinite = 0
        self.num_skipped = 0
        self.epoch_sum = 0.0
        self.epoch_count = 0
        self._forget()

    def _forget(self) -> None:
        self._sums: defaultdict[str, float] = defaultdict(float)
        self._counts: defaultdict[str, int] = defaultdict(int)
        self._unscaled: list[tuple[Surgery, list[float]]] = []

    def add(self, surgery: Surgery) -> None:
        """Take note of a surgery."""
        if not surgery.is_finite:
            self.num_nonfinite += 1
            return
        num_tasks = len(surgery.names)
        pairs = conflicting_pairs(surgery.gram, eps=self._eps)
        fraction = len(pairs) / max(1, num_tasks * (num_tasks - 1) // 2)
        self.epoch_sum += fraction
        self.epoch_count += 1
        self._note("conflicts", len(pairs))
        self._note("conflict_fraction", fraction)
        self._note("conflict_rate", conflict_rate(len(pairs), num_tasks))
        self._note("projections", surgery.num_projections)
        self._note("num_tasks", num_tasks)
        if self._per_task:
            self._add_tasks(surgery, pairs)

    def _add_tasks(self, surgery: Surgery, pairs: list[tuple[int, int]]) -> None:
        norms = [math.sqrt(max(0.0, row[task])) for task, row in enumerate(surgery.gram)]
        parts = [abs(w) * norm for w, norm in zip(surgery.weights, norms, strict=True)]
        whole = sum(parts)
        for task, name in enumerate(surgery.names):
            self._note(f"{name}/weight", surgery.weights[task])
            self._note(f"{name}/share", parts[task] / whole if whole else 0.0)
            self._note(f"{name}/conflicts", sum(task in pair for pair in pairs))
        # The scale may be on a device, which is not waited for at every step.
        self._unscaled.append((surgery, norms))
        if len(self._unscaled) == AT_ONCE:
            self._unscale()

    def _note(self, name: str, value: float) -> None:
        self._sums[name] += value
        self._counts[name] += 1

    def _unscale(self) -> None:
        waiting, self._unscaled = self._unscaled, []
        if not waiting:
            return
        scales = torch.stack([surgery.scale.double() for surgery, _ in waiting]).tolist()
        for scale, (surgery, norms) in zip(scales, waiting, strict=True):
            for name, norm in zip(surgery.names, norms, strict=True):
                self._note(f"{name}/grad_norm", norm / scale)

    def take(self) -> dict[str, float]:
        """Return the means since the last call and the counts of the fit, by name."""
        self._unscale()
        metrics = {
            f"pcgrad/{name}": total / self._counts[name] for name, total in self._sums.items()
        }
        self._forget()
        metrics["pcgrad/nonfinite"] = float(self.num_nonfinite)
        metrics["pcgrad/skipped"] = float(self.num_skipped)
        return metrics

    def end_epoch(self) -> float | None:
        """Return the mean conflict fraction of the epoch, if there was any surgery in it."""
        mean = self.epoch_sum / self.epoch_count if self.epoch_count else None
        self.epoch_sum, self.epoch_count = 0.0, 0
        return mean
