"""Flat buffers in host memory for tensors on an accelerator that computes on meanwhile."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from typing_extensions import override

from lightning_elche.ops.flat import FlatAverage, views, wire_type

__all__ = ["StagedFlatAverage"]


class StagedFlatAverage(FlatAverage):
    """A `FlatAverage` whose buffers are in page-locked host memory.

    Tensors pass through a buffer on their device, which holds them once. Only the copies between it
    and the tensors take their turn among the kernels of the training; those between it and the host
    run on a stream of their own, beside them.

    Args:
        tensors: As of `FlatAverage`, on the current device.
        plain: As of `FlatAverage`.
    """

    def __init__(self, tensors: Sequence[Tensor], plain: Sequence[Tensor] = ()) -> None:
        super().__init__(tensors, plain)
        device = self._tensors[0].device
        self._staging = torch.empty_like(self._own, device=device)
        self._staging_views = views(self._staging, self._tensors)
        self._streams = torch.get_device_module(device)
        self._stream = self._streams.Stream()
        self._is_staged, self._is_copied = self._streams.Event(), self._streams.Event()

    @property
    @override
    def own(self) -> Tensor:
        """The snapshot of the tensors; waits until it has reached the host."""
        self._is_copied.synchronize()
        return self._own

    @override
    def load(self) -> None:
        torch._foreach_copy_(self._staging_views, self._tensors)
        self._is_staged.record()
        with self._streams.stream(self._stream):
            self._is_staged.wait()
            self._own.copy_(self._staging, non_blocking=True)
            self._is_copied.record()

    @override
    def store(self) -> None:
        self._stage(self.average)
        torch._foreach_copy_(self._tensors, self._staging_views)

    @override
    def add_difference(self) -> None:
        self._stage(torch.sub(self.average, self.own, out=self._own))
        torch._foreach_add_(self._tensors, self._staging_views)

    @override
    def _buffers(self, size: int) -> tuple[Tensor, Tensor]:
        first = self._tensors[0]
        buffers = torch.empty(2, size, dtype=wire_type(first), pin_memory=first.is_cuda)
        return buffers[0], buffers[1]

    def _stage(self, flat: Tensor) -> None:
        """Copy a host buffer to the device before the kernels that are launched next."""
        with self._streams.stream(self._stream):
            self._staging.copy_(flat, non_blocking=True)
            self._is_staged.record()
        self._is_staged.wait()
