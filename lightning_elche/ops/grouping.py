"""Which tensors share a flat buffer, and where that is."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from lightning_elche.ops.flat import FlatAverage, wire_type
from lightning_elche.ops.staged import StagedFlatAverage

__all__ = ["group_by_wire_type"]


def group_by_wire_type(
    tensors: Sequence[Tensor], plain: Sequence[Tensor] = (), *, on_host: bool = False
) -> list[FlatAverage]:
    """Return one `FlatAverage` per wire type, in an order that depends on the types only.

    Args:
        tensors: As of `FlatAverage`.
        plain: As of `FlatAverage`.
        on_host: Whether tensors on a CUDA device get buffers in host memory.
    """
    groups = []
    for dtype in sorted({wire_type(tensor) for tensor in (*tensors, *plain)}, key=str):
        weighted = [tensor for tensor in tensors if wire_type(tensor) == dtype]
        others = [tensor for tensor in plain if wire_type(tensor) == dtype]
        is_staged = on_host and (weighted or others)[0].is_cuda
        groups.append((StagedFlatAverage if is_staged else FlatAverage)(weighted, others))
    return groups
