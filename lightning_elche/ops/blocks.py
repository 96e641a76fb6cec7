"""Memory for copies of many tensors: one block for each type, allocated once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from lightning_elche.ops.finite import total

__all__ = ["Blocks", "copy_all"]

# Bytes that each thread copies at once, and sums up while they are in its core's cache.
THREAD_BYTES = 2**19
LINE_BYTES = 64


class _Kind(NamedTuple):
    dtype: torch.dtype
    is_cuda: bool
    is_checked: bool


class _Few(NamedTuple):
    """Small tensors that lie beside each other, by their places."""

    places: list[int]
    views: list[Tensor]
    summed: Tensor

    def load(self, tensors: Sequence[Tensor]) -> None:
        copy_all(self.views, [tensors[place] for place in self.places])

    def load_and_sum(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        self.load(tensors)
        return [total(self.summed)]


class _Large:
    """A dense tensor, in chunks of its memory."""

    def __init__(self, place: int, chunks: tuple[Tensor, ...]) -> None:
        self._place = place
        self._chunks = chunks
        self._is_plain = chunks[0].dtype == torch.float32
        self._begin = 0  # of the tensor, in memory
        self._sources: tuple[Tensor, ...] = ()

    def load(self, tensors: Sequence[Tensor]) -> None:
        for chunk, source in self._pairs(tensors):
            chunk.copy_(source, non_blocking=True)

    def load_and_sum(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        sums = []
        for chunk, source in self._pairs(tensors):
            chunk.copy_(source)
            # It is in the cache now.
            sums.append(source.sum() if self._is_plain else total(source))
        return sums

    def _pairs(self, tensors: Sequence[Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
        tensor = tensors[self._place]
        if tensor.data_ptr() != self._begin:  # making views takes a tenth of the time of copying
            memory = tensor.detach().as_strided((tensor.numel(),), (1,))
            self._sources = torch.split(memory, self._chunks[0].numel())
            self._begin = tensor.data_ptr()
        return zip(self._chunks, self._sources, strict=True)


class Blocks:
    """Copies of tensors, in page-locked memory of the host if they are on CUDA.

    Attributes:
        views: The copies, in the order of the tensors.
    """

    def __init__(self) -> None:
        self.views: list[Tensor] = []
        self._blocks: dict[_Kind, Tensor] = {}
        self._parts: list[tuple[bool, _Few | _Large]] = []
        self._layout: list[tuple[object, ...]] = []
        self._chunk_bytes = THREAD_BYTES

    @property
    def nbytes(self) -> int:
        """Bytes that are held."""
        return sum(block.untyped_storage().nbytes() for block in self._blocks.values())

    def load(self, tensors: Sequence[Tensor], is_checked: Sequence[bool]) -> list[Tensor]:
        """Copy `tensors`; memory is allocated only where their layout has changed.

        Args:
            tensors: Without elements that share memory.
            is_checked: Which of them should be finite.

        Returns:
            Numbers that are finite if those on the CPU are.
        """
        layout: list[tuple[object, ...]] = [
            (tensor.shape, tensor.stride(), tensor.dtype, tensor.device, checks)
            for tensor, checks in zip(tensors, is_checked, strict=True)
        ]
        if layout != self._layout:
            # The old memory first.
            self._layout, self._blocks, self.views, self._parts = [], {}, [], []
            self._chunk_bytes = THREAD_BYTES * torch.get_num_threads()
            self._allocate(tensors, is_checked)
            self._layout = layout
        sums: list[Tensor] = []
        for is_summed, part in self._parts:
            if is_summed:
                sums += part.load_and_sum(tensors)
            else:
                part.load(tensors)
        return sums

    def _allocate(self, tensors: Sequence[Tensor], is_checked: Sequence[bool]) -> None:
        places: dict[_Kind, list[int]] = {}
        for place, (tensor, checks) in enumerate(zip(tensors, is_checked, strict=True)):
            places.setdefault(_Kind(tensor.dtype, tensor.is_cuda, checks), []).append(place)
        views: dict[int, Tensor] = {}
        for kind, members in places.items():
            size = sum(self._room(tensors[place]) for place in members)
            block = torch.empty(size, dtype=kind.dtype, pin_memory=kind.is_cuda)
            self._blocks[kind] = block
            is_summed = kind.is_checked and not kind.is_cuda
            views |= self._cut(block, members, tensors, is_summed=is_summed)
        self.views = [views[place] for place in range(len(tensors))]

    def _room(self, tensor: Tensor) -> int:
        is_small = tensor.nbytes <= self._chunk_bytes
        return tensor.numel() if is_small else tensor.numel() + _line(tensor)

    def _cut(
        self,
        block: Tensor,
        places: Sequence[int],
        tensors: Sequence[Tensor],
        *,
        is_summed: bool,
    ) -> dict[int, Tensor]:
        """Divide the copying of a block into parts, and return its views by place."""
        most = max(1, self._chunk_bytes // block.itemsize)
        views: dict[int, Tensor] = {}
        few: list[int] = []
        begin = end = 0

        def flush() -> None:
            nonlocal begin
            if few:
                part = _Few(list(few), [views[place] for place in few], block[begin:end])
                self._parts.append((is_summed, part))
            few.clear()
            begin = end

        for place in places:
            tensor = tensors[place]
            # A dense tensor keeps its strides, so that copying it is copying memory.
            like = torch.empty_like(tensor, device="meta")
            is_large = tensor.numel() > most and like.stride() == tensor.stride()
            if is_large or end - begin + tensor.numel() > most:
                flush()
            if is_large:
                begin = end = end + -end % _line(tensor)
            views[place] = block.as_strided(like.size(), like.stride(), storage_offset=end)
            end += tensor.numel()
            if is_large:
                size = most if is_summed else block.numel()
                chunks = torch.split(block[begin:end], size)
                self._parts.append((is_summed, _Large(place, chunks)))
                begin = end
            else:
                few.append(place)
        flush()
        return views


def _line(tensor: Tensor) -> int:
    """Return the elements of a cache line, at whose begin copying is fastest."""
    return max(1, LINE_BYTES // tensor.itemsize)


def copy_all(targets: Sequence[Tensor], sources: Sequence[Tensor]) -> None:
    """Copy each source into its target; between CUDA and page-locked memory nobody waits."""
    if targets:
        torch._foreach_copy_(list(targets), list(sources), non_blocking=True)
