"""Combines the gradients of the tasks of one step."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from lightning_elche.callbacks.pcgrad_meter import Surgery
from lightning_elche.exceptions import NoGradientsError, WeightsError
from lightning_elche.ops.order import step_generator
from lightning_elche.ops.per_task import (
    TaskGradients,
    add_weighted,
    backward_each,
    backward_weighted,
)
from lightning_elche.ops.projection import NO_GRADIENTS, pcgrad_weights
from lightning_elche.ops.reach import Reach, search_graph

if TYPE_CHECKING:
    from lightning_elche.callbacks.pcgrad_losses import TaskLosses
    from lightning_elche.callbacks.pcgrad_options import PCGradOptions

__all__ = ["Surgeon"]


class Surgeon:
    """Makes one gradient of several, and keeps the memory for that from step to step.

    Args:
        options: As of `PCGrad`.

    Attributes:
        parameters: All that may be trained, by name.
    """

    def __init__(self, options: PCGradOptions) -> None:
        self._options = options
        is_window = options.source == "microbatches"
        self._gradients = TaskGradients(shared_only=options.scope == "shared" and not is_window)
        self._num_batches = 0  # of the present window
        self._has_searched = False
        self.parameters: Mapping[str, Tensor] = {}

    def backward(
        self, losses: TaskLosses, loss: Tensor, *, step: int, micro: int
    ) -> Surgery | None:
        """Add the combined gradient to `.grad`; of a single task return `None` and do nothing.

        Args:
            losses: Of the batch.
            loss: What Lightning made of their sum.
            step: The optimizer step of this rank.
            micro: The batch within the step.

        Raises:
            NoGradientsError: If no loss reaches a parameter.
        """
        if not losses.total.requires_grad:
            raise NoGradientsError(NO_GRADIENTS)
        trained = {name: p for name, p in self.parameters.items() if p.requires_grad}
        if len(losses.weighted) == 1:
            self._check_reach(losses.total, trained)
            return None
        # What Lightning has put on the loss: the scale of AMP, over the number of batches.
        (scale,) = torch.autograd.grad(loss, losses.total, retain_graph=True)
        gradients, tasks = self._gradients, losses.weighted
        is_direct = self._options.mode == "direct"
        gradients.begin(len(tasks), trained, lambda: [search_graph(task) for task in tasks])
        backward_each(tasks, gradients, scale, frees_graph=is_direct)
        surgery = self._decide(losses.names, scale, step=step, micro=micro)
        if is_direct:
            add_weighted(gradients, surgery.weights)
        else:
            backward_weighted(tasks, gradients, scale, surgery.weights)
        return surgery

    def _check_reach(self, loss: Tensor, trained: Mapping[str, Tensor]) -> None:
        if self._has_searched:
            return
        self._has_searched = True
        if not search_graph(loss).leaves & set(map(id, trained.values())):
            raise NoGradientsError(NO_GRADIENTS)

    # Batches of one accumulation

    @property
    def has_window(self) -> bool:
        """Whether gradients of batches wait to be combined."""
        return self._num_batches > 0

    def forget_window(self) -> None:
        """Drop the gradients of the batches so far."""
        self._num_batches = 0

    def take_batch(self, *, num_tasks: int) -> None:
        """Take `.grad` of all parameters away, as the gradients of one task.

        Args:
            num_tasks: Batches of a full window.
        """
        trained = {name: p for name, p in self.parameters.items() if p.requires_grad}
        if not self.has_window:
            everything = Reach(set(map(id, trained.values())), False)
            self._gradients.begin(num_tasks, trained, lambda: [everything] * num_tasks)
        self._num_batches += 1
        self._gradients.store([p.grad for p in trained.values()])
        for parameter in trained.values():
            parameter.grad = None

    def close_window(self, *, step: int, scale: Tensor) -> Surgery:
        """Put the combined gradient of the batches so far into `.grad`.

        Args:
            step: The optimizer step of this rank.
            scale: What each batch's gradient is multiplied by.
        """
        names = tuple(map(str, range(self._num_batches)))
        self._num_batches = 0
        self._gradients.settle()
        surgery = self._decide(names, scale, step=step, micro=0)
        add_weighted(self._gradients, surgery.weights)
        return surgery

    def _decide(self, names: tuple[str, ...], scale: Tensor, *, step: int, micro: int) -> Surgery:
        gram = self._gradients.gram()
        rows: list[list[float]] = gram.tolist()
        num_projections = 0
        weights = [1.0] * len(names)
        # A value that is not finite must reach the scaler and the gates: nothing is made of it.
        is_finite = all(math.isfinite(entry) for row in rows for entry in row)
        if is_finite and self._gradients.has_scope and len(names) > 1:
            if self._options.weighting is None:
                generator = step_generator(self._options.seed, step, micro)
                own, num_projections = pcgrad_weights(
                    gram, generator=generator, eps=self._options.eps
                )
                chosen: Sequence[float] = own.tolist()
            else:
                with torch.no_grad():
                    chosen = _as_numbers(self._options.weighting(gram), len(names))
            is_finite = all(map(math.isfinite, chosen))
            weights = list(chosen) if is_finite else weights
        return Surgery(
            names=names,
            gram=rows,
            weights=weights,
            num_projections=num_projections,
            is_finite=is_finite,
            scale=scale.detach(),
        )


def _as_numbers(weights: Tensor | Sequence[float], count: int) -> list[float]:
    numbers = [float(weight) for weight in weights]
    if len(numbers) != count:
        raise WeightsError(f"`weighting` must return {count} weights, got {len(numbers)}.")
    return numbers
