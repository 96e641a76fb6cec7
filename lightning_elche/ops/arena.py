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

    @torch.no_grad()
    def put(self, groups: Groups) -> dict[str, list[HostTensor]]:
        """Copy all tensors, and return the copies, which stand until the next call.

        Cost: one pass over the bytes, and some microseconds for each tensor; more where names,
        shapes or types differ from those of the last call.

        Args:
            groups: The tensors by group; aliases are not copied.
        """
        named = [(group, one) for group, tensors in groups.items() for one in tensors]
        sources = [one.tensor for _, one in named if one.alias_of is None]
        layout = [_entry(group, one) for group, one in named]
        if layout != self._layout:
            self._layout, self._views, self._hosts = [], [], {}  # the old memory first
            self._memory = torch.empty(0, dtype=torch.uint8)
            self._allocate(groups, sources)
            self._layout = layout
        copy_all(self._views, sources)
        for device in {source.device for source in sources if source.is_cuda}:
            torch.cuda.synchronize(device)
        return {group: list(hosts) for group, hosts in self._hosts.items()}

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
