"""Many tensors as one flat buffer, so that one collective moves them all."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = ["FlatAverage", "as_real", "views", "wire_type"]


class FlatAverage:
    """Tensors of one wire type as two flat buffers: what the rank had, and the average.

    `load`, `scale`, a sum of `average` over ranks, `store`; only the first and the last touch the
    tensors. Each costs O(elements) memory traffic, no Python per tensor.

    Args:
        tensors: Weighted tensors, such as parameters.
        plain: Tensors with a scale of their own, such as buffers.
    """

    def __init__(self, tensors: Sequence[Tensor], plain: Sequence[Tensor] = ()) -> None:
        self._weighted_tensors = list(tensors)
        self._tensors = [*tensors, *plain]
        self._num_weighted = sum(tensor.numel() for tensor in tensors)
        self._own, self.average = self._buffers(
            self._num_weighted + sum(tensor.numel() for tensor in plain)
        )
        self._own_views = views(self._own, self._tensors)
        self._average_views = views(self.average, self._tensors)

    @property
    def own(self) -> Tensor:
        """The snapshot of the tensors."""
        return self._own

    def load(self) -> None:
        """Copy the tensors in: from now on `own` is a snapshot of them."""
        torch._foreach_copy_(self._own_views, self._tensors)

    def scale(
        self, scale: float, plain_scale: float = 0.0, *, origin: Tensor | None = None
    ) -> None:
        """Make `average` this rank's summand; a scale of 0 zeroes, so that NaN cannot spread.

        Args:
            scale: What to multiply the weighted tensors by.
            plain_scale: What to multiply the others by.
            origin: What to subtract first, if anything; of the same layout.
        """
        source = self.own if origin is None else torch.sub(self.own, origin, out=self.average)
        cut = self._num_weighted
        for part, factor in ((slice(cut), scale), (slice(cut, None), plain_scale)):
            if factor:
                torch.mul(source[part], factor, out=self.average[part])
            else:
                self.average[part].zero_()

    def store(self) -> None:
        """Copy the average out to the tensors."""
        torch._foreach_copy_(self._tensors, self._average_views)

    def add_difference(self) -> None:
        """Add `average - own` to the tensors, which may have changed since `load`.

        The snapshot is used up.
        """
        torch.sub(self.average, self.own, out=self.own)
        torch._foreach_add_(self._tensors, self._own_views)

    def weighted(self, flat: Tensor) -> Tensor:
        """Return the part of a buffer of this layout that belongs to the weighted tensors."""
        return flat[: self._num_weighted]

    def by_tensor(self, flat: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Return each tensor with its part of a buffer of this layout, or of its weighted part."""
        tensors = self._tensors if len(flat) == len(self.own) else self._weighted_tensors
        return list(zip(tensors, views(flat, tensors), strict=True))

    def squared_norms(self) -> Tensor:
        """Return the squared norms of (pre - post, post) of the weighted tensors, on the CPU."""
        own, average = self.weighted(self.own), self.weighted(self.average)
        norms = torch.stack([torch.dist(own, average), torch.linalg.vector_norm(average)])
        return norms.double().square().cpu()

    def _buffers(self, size: int) -> tuple[Tensor, Tensor]:
        """Return room for the snapshot and for the average, of `size` elements each."""
        first = self._tensors[0]
        buffers = torch.empty(2, size, dtype=wire_type(first), device=first.device)
        return buffers[0], buffers[1]


def wire_type(tensor: Tensor) -> torch.dtype:
    """Return the type in which a floating-point tensor is averaged: float32 at least."""
    return torch.promote_types(tensor.dtype, torch.float32)


def as_real(tensor: Tensor) -> Tensor:
    """Return the tensor, with a dimension for the two parts of a complex number."""
    return torch.view_as_real(tensor.detach()) if tensor.is_complex() else tensor


def views(flat: Tensor, tensors: Sequence[Tensor]) -> list[Tensor]:
    """Return the part of a flat buffer that belongs to each tensor, in its shape."""
    parts = torch.split(flat, [tensor.numel() for tensor in tensors])
    return [part.view(tensor.shape) for part, tensor in zip(parts, tensors, strict=True)]
