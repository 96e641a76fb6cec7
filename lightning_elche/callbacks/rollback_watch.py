"""Collects the values that decide whether batches were healthy, on their device until asked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lightning_elche.ops.finite import read_together

__all__ = ["LossWatch", "Readings", "monitored"]


@dataclass(slots=True)
class Readings:
    """What was read.

    Attributes:
        value: The largest of the values, NaN if one was not finite; `None` if there were none.
        are_finite: For each list of sums, whether all of them are finite.
    """

    value: float | None
    are_finite: list[bool]


class LossWatch:
    """Keeps the largest of the values since the last reading, and whether all were finite."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Forget what was not read."""
        self._largest: Tensor | None = None

    def add(self, value: Tensor | float, *, factor: float = 1.0) -> None:
        """Take in the value of a batch, without reading it.

        Args:
            value: A number, or a tensor of one.
            factor: What to multiply it by.
        """
        number = value if isinstance(value, Tensor) else torch.tensor(value)
        if number.requires_grad or number.dim():
            number = number.detach().reshape(())
        if factor != 1.0:
            number = number * factor
        largest = self._largest
        if largest is None:
            self._largest = number
        else:
            # `x - x` is NaN where `x` is not finite, of either sign.
            self._largest = torch.maximum(largest, number) + (largest - largest + number - number)

    def read(self, sums: Sequence[Sequence[Tensor]] = ()) -> Readings:
        """Return what there is, together with whether sums are finite, with one read.

        Args:
            sums: As `checksum` returns them.
        """
        largest, self._largest = self._largest, None
        own = [] if largest is None else [largest]
        numbers = read_together([*own, *(number for part in sums for number in part)])
        value = None if largest is None else numbers.pop(0)
        are_finite = []
        for part in sums:
            read, numbers = numbers[: len(part)], numbers[len(part) :]
            are_finite.append(all(number - number == 0.0 for number in read))
        return Readings(value, are_finite)


def monitored(outputs: Any, monitor: str) -> Any:  # noqa: ANN401  # whatever a step returned
    """Return the monitored value of a step, `None` if it was skipped.

    Args:
        outputs: As in `Callback.on_train_batch_end`.
        monitor: A key of them.

    Raises:
        ValueError: If the step has no such value.
    """
    if not isinstance(outputs, Mapping):
        outputs = {} if outputs is None else {"loss": outputs}
    if monitor in outputs:
        return outputs[monitor]
    if not outputs or outputs.get("loss", 0) is None:
        return None
    raise ValueError(
        f"`monitor` must be a key of what `training_step` returns, got {monitor!r}. There are: "
        f"{', '.join(sorted(map(str, outputs)))}."
    )
