"""Memory that a state is copied into, so that training goes on while the copy is written."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from lightning_elche.ops.blocks import copy_all
from lightning_elche.ops.tensor_state import GroupTensor
from lightning_elche.ops.tensor_types import code_and_shape
from lightning_elche.partition.image import HostTensor

__all__ = ["Arena"]

LINE_BYTES = 64  # at whose begin copying is fastest

Groups = Mapping[str, Sequence[GroupTensor]]
Ranges = Mapping[tuple[str, str], Sequence[tuple[int, int]]]


class Arena:
    """Holds one copy of a state at a time; the memory is used again for the next one.

    It is page-locked if any tensor is on CUDA.

    Example:
        >>> arena = Arena()
        >>> one = GroupTensor(name="w", tensor=torch.ones(2))
        >>> arena.put({"model": [one]})["model"][0].array().tolist()
        [1.0, 1.0]
    """

    def __init__(self) -> None:
        self._memory = torch.empty(0, dtype=torch.uint8)
        self._layout: list[tuple[object, ...]] = []
        self._views: list[Tensor] = []
        self._hosts: dict[str, list[HostTensor]] = {}

    @property
    def nbytes(self) -> int:
        """Bytes that are held."""
        return self._memory.nbytes

    def put(self, groups: Groups) -> dict[str, list[HostTensor]]:
        """Copy all tensors, and return the copies, which stand until the next call.

        Cost: one pass over the bytes, and some microseconds for each tensor; more where names,
        shapes or types differ from those of the last call.

        Args:
            groups: The tensors by group; aliases are not copied.
        """
        hosts = self.prepare(groups)
        self.load(groups)
        return hosts

    def prepare(self, groups: Groups) -> dict[str, list[HostTensor]]:
        """Return where the copies of tensors will be, without copying them.

        Args:
            groups: The tensors by group.
        """
        layout = [_entry(group, one) for group, tensors in groups.items() for one in tensors]
        if layout != self._layout:
            self._layout, self._views, self._hosts = [], [], {}  # the old memory first
            self._memory = torch.empty(0, dtype=torch.uint8)
            self._allocate(groups, _stored(groups))
            self._layout = layout
        return {group: list(hosts) for group, hosts in self._hosts.items()}

    @torch.no_grad()
    def load(self, groups: Groups, ranges: Ranges | None = None) -> None:
        """Copy tensors to the places that `prepare` has returned.

        Memory that nothing is copied to is not touched, so that it takes up none.

        Args:
            groups: What `prepare` was given.
            ranges: The bytes that are wanted of each tensor, by group and name; by default all.
        """
        sources = _stored(groups)
        views: Sequence[Tensor] = self._views
        if ranges is not None:
            names = [
                (group, one.name)
                for group, tensors in groups.items()
                for one in tensors
                if one.alias_of is None
            ]
            named = list(zip(names, zip(views, sources, strict=True), strict=True))
            pairs = [
                (_items(view, place), _items(source, place))
                for name, (view, source) in named
                for place in ranges.get(name, ())
            ]
            views, sources = [to for to, _ in pairs], [source for _, source in pairs]
        copy_all(views, sources)
        for device in {source.device for source in sources if source.is_cuda}:
            torch.cuda.synchronize(device)

    def _allocate(self, groups: Groups, sources: Sequence[Tensor]) -> None:
        rooms = [-(-source.nbytes // LINE_BYTES) * LINE_BYTES for source in sources]
        starts = list(itertools.accumulate(rooms, initial=0))
        is_pinned = any(source.is_cuda for source in sources)
        memory = torch.empty(starts[-1], dtype=torch.uint8, pin_memory=is_pinned)
        parts = [
            memory[start : start + source.nbytes]
            for start, source in zip(starts, sources, strict=False)
        ]
        pairs = zip(parts, sources, strict=True)
        self._memory = memory
        self._views = [part.view(source.dtype).view(source.shape) for part, source in pairs]
        unused = iter(parts)
        for group, tensors in groups.items():
            own = {one.name: next(unused) for one in tensors if one.alias_of is None}
            self._hosts[group] = [_host(one, own[one.alias_of or one.name]) for one in tensors]


def _stored(groups: Groups) -> list[Tensor]:
    """Return the tensors that are copied."""
    return [one.tensor for own in groups.values() for one in own if one.alias_of is None]


def _items(tensor: Tensor, place: tuple[int, int]) -> Tensor:
    """Return the items of a tensor between two bytes; ranges of rows do not cut any."""
    start, end = place
    return tensor.reshape(-1)[start // tensor.itemsize : end // tensor.itemsize]


def _entry(group: str, one: GroupTensor) -> tuple[object, ...]:
    tensor = one.tensor
    return group, one.name, one.alias_of, tensor.shape, tensor.dtype, tensor.is_cuda


def _host(one: GroupTensor, memory: Tensor) -> HostTensor:
    code, shape, logical = code_and_shape(one.tensor)
    return HostTensor(
        name=one.name,
        dtype=code,
        shape=shape,
        data=memory.numpy().data,
        logical_dtype=logical,
        alias_of=one.alias_of,
    )
