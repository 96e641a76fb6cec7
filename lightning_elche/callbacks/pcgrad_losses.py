"""Finds the losses of several tasks in what a `training_step` returns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lightning.pytorch.utilities.memory import recursive_detach
from torch import Tensor

from lightning_elche.exceptions import NoGradientsError, WeightsError
from lightning_elche.ops.projection import NO_GRADIENTS

__all__ = ["TaskLosses", "losses_in"]


@dataclass(frozen=True, kw_only=True)
class TaskLosses:
    """The losses of one batch.

    Attributes:
        names: One per task.
        weighted: The losses, each times the weight of its task.
        total: Their sum.
        output: What Lightning gets instead: the total as "loss", everything else detached.
    """

    names: tuple[str, ...]
    weighted: tuple[Tensor, ...]
    total: Tensor
    output: dict[str, Any]


def losses_in(
    output: Any,  # noqa: ANN401  # whatever the user's step returns
    task_weights: Sequence[float] | Mapping[str, float] | None,
) -> TaskLosses | None:
    """Return the losses of the tasks, or `None` if the step returned none or a plain one.

    Args:
        output: Of `training_step`.
        task_weights: As of `PCGrad`.

    Raises:
        ValueError: If it is not clear what the losses are, or one is no scalar.
        NoGradientsError: If their list is empty.
        WeightsError: If `task_weights` are others than the tasks.
    """
    found = _split(output)
    if found is None:
        return None
    losses, rest = found
    if not losses:
        raise NoGradientsError(NO_GRADIENTS)
    named = losses if isinstance(losses, Mapping) else dict(enumerate(losses))
    for name, loss in named.items():
        if not isinstance(loss, Tensor) or loss.dim() > 0:
            got = f"shape {tuple(loss.shape)}" if isinstance(loss, Tensor) else type(loss).__name__
            raise ValueError(f"`losses[{name!r}]` must be a scalar tensor, got {got}.")
    factors = _factors(losses, task_weights)
    weighted = tuple(
        loss if factor == 1.0 else loss * factor
        for loss, factor in zip(named.values(), factors, strict=True)
    )
    total = weighted[0]
    for loss in weighted[1:]:
        total = total + loss
    detached = {name: loss.detach() for name, loss in named.items()}
    output = {
        "loss": total,
        **(recursive_detach(dict(rest)) if rest else {}),
        "losses": detached if isinstance(losses, Mapping) else list(detached.values()),
    }
    return TaskLosses(names=tuple(map(str, named)), weighted=weighted, total=total, output=output)


def _split(output: Any) -> tuple[Any, Mapping[str, Any]] | None:  # noqa: ANN401
    """Return the losses and what else there is."""
    if isinstance(output, (list, tuple)):
        return output, {}
    if not isinstance(output, Mapping):
        return None
    if "losses" in output:
        if "loss" in output:
            raise ValueError(
                '`training_step` must return either "loss" or "losses", got both. PCGrad makes '
                "the first of the second; give a value that is only logged another name."
            )
        losses = output["losses"]
        if not isinstance(losses, (list, tuple, Mapping)):
            raise ValueError(
                f'`training_step` must return a list, tuple or mapping as "losses", got '
                f"{type(losses).__name__}."
            )
        return losses, {key: value for key, value in output.items() if key != "losses"}
    return None if "loss" in output else (output, {})


def _factors(
    losses: Sequence[Tensor] | Mapping[str, Tensor],
    task_weights: Sequence[float] | Mapping[str, float] | None,
) -> list[float]:
    if task_weights is None:
        return [1.0] * len(losses)
    if isinstance(task_weights, Mapping):
        names = list(losses) if isinstance(losses, Mapping) else list(map(str, range(len(losses))))
        if set(names) != set(task_weights):
            raise WeightsError(
                f"`task_weights` must name the tasks {names}, got {list(task_weights)}."
            )
        return [task_weights[name] for name in names]
    if len(task_weights) != len(losses):
        raise WeightsError(
            f"`task_weights` must be {len(losses)} numbers, one a task, got {len(task_weights)}."
        )
    return list(task_weights)
