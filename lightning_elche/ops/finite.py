"""Whether all values of many tensors are finite, in one number for each device."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

__all__ = ["checksum", "read_together", "total", "totals"]


def total(tensor: Tensor) -> Tensor:
    """Return the sum of a floating tensor in float32, or float64 if that is its type.

    It is finite if all values are; values whose sum leaves the range count as not finite.
    """
    if tensor.dtype == torch.float32:
        return tensor.sum()
    real = torch.view_as_real(tensor) if tensor.is_complex() else tensor
    dtype = torch.float64 if real.dtype == torch.float64 else torch.float32
    if real.itemsize == 1:
        real = real.to(dtype)  # the 8-bit types have no sum
    return real.sum(dtype=dtype)


def checksum(numbers: Iterable[Tensor]) -> list[Tensor]:
    """Return a scalar for each device, which is finite if all numbers are. Reads nothing."""
    kinds: dict[tuple[torch.device, torch.dtype], list[Tensor]] = {}
    for number in numbers:
        kinds.setdefault((number.device, number.dtype), []).append(number)
    by_device: dict[torch.device, Tensor] = {}
    for (device, _), alike in kinds.items():
        part = (alike[0] if len(alike) == 1 else torch.stack(alike)).double().sum()
        by_device[device] = by_device[device] + part if device in by_device else part
    return list(by_device.values())


@torch.no_grad()
def totals(tensors: Iterable[Tensor]) -> list[Tensor]:
    """Return a scalar for each device, which is finite if all floating values there are.

    Cost: one pass.

    Args:
        tensors: On any devices; those of integers are left out.
    """
    kept = (tensor for tensor in tensors if tensor.is_floating_point() or tensor.is_complex())
    return checksum(total(tensor) for tensor in kept)


def read_together(numbers: Iterable[Tensor]) -> list[float]:
    """Return scalars as Python numbers, with one read from each device.

    Args:
        numbers: Of floating-point types.
    """
    numbers = list(numbers)
    if len(numbers) == 1:
        return [float(numbers[0])]
    by_device: dict[torch.device, list[int]] = {}
    for index, number in enumerate(numbers):
        by_device.setdefault(number.device, []).append(index)
    values = [0.0] * len(numbers)
    for indices in by_device.values():
        read = torch.stack([numbers[index].detach().double().reshape(()) for index in indices])
        for index, value in zip(indices, read.tolist(), strict=True):
            values[index] = value
    return values
