"""Tensors as one flat vector and back, bit for bit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lightning_elche.exceptions import FlatSizeError, MixedTensorsError, NoGradientsError

__all__ = ["FlatSpec", "check_alike", "flatten", "unflatten"]


@dataclass(frozen=True)
class FlatSpec:
    """The shapes of the tensors in a flat vector, in their order.

    Attributes:
        shapes: One per tensor.
    """

    shapes: tuple[torch.Size, ...]

    @property
    def numel(self) -> int:
        """Elements of all tensors together."""
        return sum(shape.numel() for shape in self.shapes)


def flatten(tensors: Sequence[Tensor]) -> tuple[Tensor, FlatSpec]:
    """Return all elements of `tensors` one after the other, and how to take them apart.

    Raises:
        NoGradientsError: If there are none.
        MixedTensorsError: If they differ in device or type: nothing is moved or cast.

    Example:
        >>> import torch
        >>> flat, spec = flatten([torch.tensor([[1.0, 2.0]]), torch.tensor(3.0)])
        >>> flat.tolist()
        [1.0, 2.0, 3.0]
        >>> [part.tolist() for part in unflatten(flat, spec)]
        [[[1.0, 2.0]], 3.0]
    """
    if not tensors:
        raise NoGradientsError("no tensors to flatten")
    check_alike(tensors)
    flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
    return flat, FlatSpec(tuple(tensor.shape for tensor in tensors))


def unflatten(flat: Tensor, spec: FlatSpec) -> list[Tensor]:
    """Return the tensors that a flat vector holds, as views of it.

    Raises:
        FlatSizeError: If it has another number of elements than they have.
    """
    if flat.numel() != spec.numel:
        raise FlatSizeError(f"flat gradient must have {spec.numel} elements, got {flat.numel()}")
    parts = torch.split(flat, [shape.numel() for shape in spec.shapes])
    return [part.view(shape) for part, shape in zip(parts, spec.shapes, strict=True)]


def check_alike(tensors: Sequence[Tensor]) -> None:
    """Check that tensors are on one device and of one type.

    Raises:
        MixedTensorsError: Naming the first that differs.
    """
    for kind in ("device", "dtype"):
        first = getattr(tensors[0], kind)
        for position, tensor in enumerate(tensors):
            if getattr(tensor, kind) != first:
                raise MixedTensorsError(
                    f"gradient tensors must share one {kind}, got {first} and "
                    f"{getattr(tensor, kind)} (tensor {position})"
                )
