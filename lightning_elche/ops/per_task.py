"""One backward pass per task, and what becomes of the gradients."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from lightning_elche.exceptions import NoGradientsError
from lightning_elche.ops.gram import GramBuffer
from lightning_elche.ops.projection import NO_GRADIENTS
from lightning_elche.ops.reach import Reach

__all__ = ["TaskGradients", "add_weighted", "backward_each", "backward_weighted"]


class TaskGradients:
    """Keeps the gradients of several tasks: those in scope as rows of a buffer, the rest as is.

    The buffer is laid out anew only when it changes which task reaches which parameter. `begin`,
    then `store` for each task, then `settle`; after that the rest can be asked for.

    Args:
        shared_only: Whether the scope is the parameters that two tasks or more reach, or all.

    Attributes:
        parameters: What is trained.
        has_scope: Whether any parameter is in scope at this step.
        buffer: The rows, if there are any.
    """

    def __init__(self, *, shared_only: bool) -> None:
        self._shared_only = shared_only
        self._known: tuple[int, ...] = ()
        self._names: list[str] = []
        self._layout: list[int] = []  # the parameters in scope, by position
        self._seen: list[set[int]] | None = None  # what was reached ever, where a graph is compiled
        self._spared: list[dict[int, Tensor]] = []  # gradients out of scope, by task and position
        self.has_scope = False
        self.parameters: list[Tensor] = []
        self.buffer: GramBuffer | None = None

    def begin(
        self,
        num_tasks: int,
        parameters: Mapping[str, Tensor],
        predict: Callable[[], Sequence[Reach]],
    ) -> None:
        """Prepare for the gradients of a step.

        Args:
            num_tasks: How many will be stored at most.
            parameters: What is trained, by name.
            predict: Returns for each task where its graph leads to; called if tasks or parameters
                are others than before.
        """
        known = (num_tasks, *map(id, parameters.values()))
        if known != self._known:
            reach = predict()
            self._names, self.parameters = list(parameters), list(parameters.values())
            may_reach = [[id(owner) in task.leaves for owner in self.parameters] for task in reach]
            self._lay_out(num_tasks, self._scope(may_reach))
            is_compiled = any(task.is_compiled for task in reach)
            self._seen = [set() for _ in reach] if is_compiled else None
            self._known = known
        self._spared = [{} for _ in range(num_tasks)]
        self._reach: list[list[bool]] = []

    def store(self, gradients: Sequence[Tensor | None]) -> None:
        """Take the gradients of the next task, one for each parameter; `None`: not reached.

        Raises:
            TypeError: If one is sparse or complex.
        """
        task = len(self._reach)
        for name, gradient in zip(self._names, gradients, strict=True):
            if gradient is not None and (gradient.is_sparse or gradient.is_complex()):
                kind = "sparse" if gradient.is_sparse else str(gradient.dtype)
                raise TypeError(f"`{name}` must have a dense and real gradient, got {kind}.")
        if self._seen is not None:
            gradients = _without_zeros(gradients, self._seen[task])
        self._reach.append([gradient is not None for gradient in gradients])
        rest = {i: gradient for i, gradient in enumerate(gradients) if gradient is not None}
        _fill(self._views[task], [rest.pop(i, None) for i in self._layout])
        self._spared[task] = rest

    def settle(self) -> None:
        """Bring the scope in line with what the tasks have reached.

        Raises:
            NoGradientsError: If that is nothing.
        """
        if self._seen is None and not any(map(any, self._reach)):
            raise NoGradientsError(NO_GRADIENTS)
        scope = self._scope(self._reach)
        self.has_scope = bool(scope)
        # Where no parameter is shared, since labels are missing, the next step may need the rows.
        if scope and scope != self._layout:
            self._move(scope)

    def gram(self) -> Tensor:
        """Return the inner products of the tasks' gradients in scope; float64, on the CPU."""
        num_tasks = len(self._reach)
        if not self.has_scope:
            return torch.zeros(num_tasks, num_tasks, dtype=torch.float64)
        assert self.buffer is not None
        return self.buffer.first(num_tasks).gram()

    def spared(self, task: int) -> list[tuple[Tensor, Tensor]]:
        """Return the parameters out of scope that a task reaches, with their gradients."""
        return [(self.parameters[i], gradient) for i, gradient in self._spared[task].items()]

    def combined(self, weights: Sequence[float]) -> list[tuple[Tensor, Tensor]]:
        """Return the parameters in scope, with the weighted sums of their gradients."""
        if self.buffer is None:
            return []
        flat = self.buffer.first(len(self._reach)).combine(weights)
        owners = [self.parameters[i] for i in self._layout]
        reached = [any(column) for column in zip(*self._reach, strict=True)]
        pairs = zip(self._layout, owners, _views(flat, owners), strict=True)
        return [(owner, part) for i, owner, part in pairs if reached[i]]

    def _scope(self, reach: Sequence[Sequence[bool]]) -> list[int]:
        least = 2 if self._shared_only else 1
        counts = [sum(column) for column in zip(*reach, strict=True)]
        return [i for i, count in enumerate(counts) if count >= least]

    def _lay_out(self, num_tasks: int, scope: list[int]) -> None:
        self.buffer, self._layout = None, scope  # the old rows go before new ones come
        owners = [self.parameters[i] for i in scope]
        self._views: list[list[Tensor]] = [[] for _ in range(num_tasks)]
        if owners:
            dtype = owners[0].dtype
            for owner in owners:
                dtype = torch.promote_types(dtype, owner.dtype)
            numel = sum(owner.numel() for owner in owners)
            self.buffer = GramBuffer(num_tasks, numel, dtype, owners[0].device)
            self._views = [_views(self.buffer.row(task), owners) for task in range(num_tasks)]

    def _move(self, scope: list[int]) -> None:
        """Lay the rows out for `scope`, with all that was stored in this step."""
        old = [dict(zip(self._layout, views, strict=True)) for views in self._views]
        self._lay_out(len(old), scope)
        for task, reached in enumerate(self._reach):
            sources = {**old[task], **self._spared[task]}
            old[task] = {}
            held = {i: source for i, source in sources.items() if reached[i]}
            _fill(self._views[task], [held.pop(i, None) for i in scope])
            # Copies, since a view would keep the old rows.
            self._spared[task] = {
                i: source.to(self.parameters[i].dtype, copy=True) for i, source in held.items()
            }


def backward_each(
    losses: Sequence[Tensor], gradients: TaskGradients, scale: Tensor, *, frees_graph: bool
) -> None:
    """Store the gradients of each loss; `.grad` of the parameters stays as it is.

    One backward pass for each loss.

    Args:
        losses: Scalars.
        gradients: Has begun a step.
        scale: What every gradient is multiplied by from the start.
        frees_graph: Whether the last pass frees the graph.
    """
    parameters = gradients.parameters
    passes = [task for task, loss in enumerate(losses) if loss.requires_grad]
    for task, loss in enumerate(losses):
        if task not in passes:
            gradients.store([None] * len(parameters))
            continue
        keeps = not frees_graph or task != passes[-1]
        gradients.store(
            torch.autograd.grad(
                loss, parameters, scale.to(loss), retain_graph=keeps, allow_unused=True
            )
        )
    gradients.settle()


def backward_weighted(
    losses: Sequence[Tensor], gradients: TaskGradients, scale: Tensor, weights: Sequence[float]
) -> None:
    """Add the weighted gradients by one more backward pass, with all hooks that others have set.

    Parameters out of scope get their plain gradient: it is put in the place of the weighted one,
    which cannot be divided by a weight that may be 0.
    """
    handles = [
        parameter.register_hook(lambda _, plain=plain: plain)  # type: ignore[no-untyped-call]
        for task, weight in enumerate(weights)
        if weight != 1.0
        for parameter, plain in gradients.spared(task)
    ]
    graded = [(loss, w) for loss, w in zip(losses, weights, strict=True) if loss.requires_grad]
    try:
        torch.autograd.backward(
            [loss for loss, _ in graded], [(scale * weight).to(loss) for loss, weight in graded]
        )
    finally:
        for handle in handles:
            handle.remove()


def add_weighted(gradients: TaskGradients, weights: Sequence[float]) -> None:
    """Add the weighted gradients to `.grad` of the parameters, without a backward pass."""
    for parameter, part in gradients.combined(weights):
        _add(parameter, part)
    for task in range(len(weights)):
        for parameter, plain in gradients.spared(task):
            _add(parameter, plain.clone())  # of which autograd may have made two gradients


def _add(parameter: Tensor, gradient: Tensor) -> None:
    if parameter.grad is not None:
        parameter.grad += gradient
    elif gradient.dtype == parameter.dtype and gradient.stride() == parameter.stride():
        parameter.grad = gradient
    else:
        parameter.grad = torch.empty_like(parameter).copy_(gradient)


def _without_zeros(gradients: Sequence[Tensor | None], seen: set[int]) -> list[Tensor | None]:
    """Return the gradients without those that have been zero at every step so far.

    Waits for the device.

    Args:
        gradients: Of one task.
        seen: The positions of those that have not, which is brought up to date.
    """
    open_ones = {i: g for i, g in enumerate(gradients) if g is not None and i not in seen}
    if open_ones:
        is_seen: list[bool] = torch.stack([g.any() for g in open_ones.values()]).tolist()
        seen.update(i for i, is_new in zip(open_ones, is_seen, strict=True) if is_new)
    return [g if i in seen else None for i, g in enumerate(gradients)]


def _views(flat: Tensor, owners: Sequence[Tensor]) -> list[Tensor]:
    parts = torch.split(flat, [owner.numel() for owner in owners])
    return [part.view(owner.shape) for part, owner in zip(parts, owners, strict=True)]


def _fill(views: Sequence[Tensor], gradients: Sequence[Tensor | None]) -> None:
    """Copy gradients into their views, zeros where there is none."""
    pairs = list(zip(views, gradients, strict=True))
    filled = [(view, gradient) for view, gradient in pairs if gradient is not None]
    empty = [view for view, gradient in pairs if gradient is None]
    if filled:
        torch._foreach_copy_([view for view, _ in filled], [gradient for _, gradient in filled])
    if empty:
        torch._foreach_zero_(empty)
