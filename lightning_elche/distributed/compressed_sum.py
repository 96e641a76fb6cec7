"""Sums over ranks at half the traffic, whose roundings are made up for later."""

from __future__ import annotations

import torch
from torch import Tensor

from lightning_elche.distributed.collectives import Collectives

__all__ = ["CompressedSum"]


class CompressedSum:
    """Sums float32 buffers over ranks as bfloat16, with error feedback.

    Each rank keeps what the rounding of its summand lost and adds it to its next summand (Seide et
    al., Interspeech 2014; Karimireddy et al., arXiv 1901.09847), so that the sum of all results
    stays within one rounding of the sum of all summands, however many there were.

    No backend sums bfloat16 without rounding on the way, in places that nobody could make up for.
    Instead, each rank gets one part of all summands, adds them up in float32, rounds the sum and
    keeps that rounding as well (the double pass of Tang et al., arXiv 1905.05957). The traffic is
    that of an all-reduce of bfloat16 at any number of ranks, and every rank gets the same bits.

    Cost: O(elements) memory traffic, and 4 bytes an element for what is kept.

    Args:
        size: Number of elements of the buffers.
        device: Where they are.
        collectives: How to reach the other ranks.
    """

    def __init__(self, size: int, device: torch.device, collectives: Collectives) -> None:
        self._collectives = collectives
        part = -(-size // collectives.world_size)
        own = slice(collectives.rank * part, (collectives.rank + 1) * part)
        self._padded_error = torch.zeros(part * collectives.world_size, device=device)
        self._error_of_sum = self._padded_error[own]
        self.error = self._padded_error[:size]
        self.wire_bytes = size * torch.bfloat16.itemsize

    def sum_(self, tensor: Tensor) -> None:
        """Replace `tensor` by the sum over all ranks of summands and of what earlier ones lost.

        A rank whose summand is 0 sends what it still owes.
        """
        collectives = self._collectives
        self.error += tensor
        rounded = self._padded_error.bfloat16()
        self._padded_error -= rounded  # exact: the rest of a rounding fits into float32
        # Order on every rank: parts of the summands, then parts of the sum.
        first, *others = collectives.swap_parts(rounded)
        total = first.float()
        for other in others:  # one by one: torch.sum over so few is slow on a CPU
            total += other
        rounded_total = total.bfloat16()
        self._error_of_sum += total - rounded_total
        tensor.copy_(collectives.join_parts(rounded_total)[: tensor.numel()])
