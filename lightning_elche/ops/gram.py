"""Inner products of the gradients of several tasks, and their weighted sum."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = ["GramBuffer"]

BLOCK = 16_384  # columns multiplied at once in float32; longer sums lose digits
CACHED = 65_536  # columns summed at once
SAFE = (1e-30, 1e30)  # squared norms that float32 holds to its full precision


class GramBuffer:
    """One row per task in one matrix J, of which only J J^T and w J are ever asked.

    Half precision is held in float32, other types as they are. `gram` and `combine` read the matrix
    once each: O(num_tasks^2 numel) operations, O(num_tasks numel) memory traffic.

    Args:
        num_tasks: Number of rows.
        numel: Elements of a row; the matrix is padded with zeros to a multiple of 16,384.
        dtype: Floating-point type of the gradients.
        device: Where they are.

    Example:
        >>> import torch
        >>> buffer = GramBuffer(2, 2, torch.float32, torch.device("cpu"))
        >>> _ = buffer.row(0).copy_(torch.tensor([1.0, 0.0]))
        >>> _ = buffer.row(1).copy_(torch.tensor([-1.0, 1.0]))
        >>> buffer.gram().tolist()
        [[1.0, -1.0], [-1.0, 2.0]]
        >>> buffer.combine([1.5, 2.0]).tolist()
        [-0.5, 2.0]
    """

    def __init__(
        self, num_tasks: int, numel: int, dtype: torch.dtype, device: torch.device | str
    ) -> None:
        padded = -(-numel // BLOCK) * BLOCK
        wide = torch.float32 if dtype.itemsize < torch.float32.itemsize else dtype
        self.numel = numel
        self._rows = torch.empty(num_tasks, padded, dtype=wide, device=device)
        self._rows[:, numel:] = 0.0

    def row(self, task: int) -> Tensor:
        """Return the row of a task, to be written to."""
        return self._rows[task, : self.numel]

    def first(self, num_tasks: int) -> GramBuffer:
        """Return the first rows as a buffer, in the same memory."""
        part = copy.copy(self)
        part._rows = self._rows[:num_tasks]
        return part

    @torch.no_grad()
    def gram(self) -> Tensor:
        """Return J J^T in float64 on the CPU; the only wait for the device."""
        with torch.autocast(self._rows.device.type, enabled=False):
            if self._is_multiplied_in_double():
                return _mirrored(self._product_in_double())
            gram = self._product().cpu()
            if self._is_out_of_range(gram):
                gram = self._product_in_double()
            return _mirrored(gram)

    @torch.no_grad()
    def combine(self, weights: Tensor | Sequence[float]) -> Tensor:
        """Return w J in the type of the rows.

        Args:
            weights: One for each row.
        """
        rows = self._rows
        factors = torch.as_tensor(weights, dtype=rows.dtype).to(rows.device)
        combined = rows.new_empty(rows.shape[1])
        # On a CPU in parts that stay in its cache while they are summed.
        size = CACHED if rows.device.type == "cpu" else max(1, rows.shape[1])
        with torch.autocast(rows.device.type, enabled=False):
            for begin in range(0, rows.shape[1], size):
                columns = slice(begin, begin + size)
                torch.mv(rows[:, columns].t(), factors, out=combined[columns])
        return combined[: self.numel]

    def _is_multiplied_in_double(self) -> bool:
        # Devices other than the CPU, and a lower precision that the user has set, multiply float32
        # with fewer digits.
        return self._rows.dtype == torch.float32 and (
            self._rows.device.type != "cpu" or torch.get_float32_matmul_precision() != "highest"
        )

    def _blocks(self) -> Tensor:
        return self._rows.view(len(self._rows), -1, BLOCK).transpose(0, 1)

    def _product(self) -> Tensor:
        blocks = self._blocks()
        return torch.bmm(blocks, blocks.mT).sum(0, dtype=torch.float64)

    def _product_in_double(self) -> Tensor:
        blocks = self._blocks()
        gram = blocks.new_zeros(blocks.shape[1], blocks.shape[1], dtype=torch.float64)
        # In parts whose copies take no more memory than one row.
        for part in torch.split(blocks, max(1, len(blocks) // (2 * len(self._rows)))):
            wide = part.double()
            gram += torch.bmm(wide, wide.mT).sum(0)
        return gram.cpu()

    def _is_out_of_range(self, gram: Tensor) -> bool:
        """Whether float32 may have lost what a finite row holds."""
        if self._rows.dtype != torch.float32:
            return False
        low, high = SAFE
        norms: list[float] = gram.diagonal().tolist()
        return any(
            not low <= norm <= high and bool(row.any()) and bool(row.isfinite().all())
            for norm, row in zip(norms, self._rows, strict=True)
        )


def _mirrored(gram: Tensor) -> Tensor:
    """Return the matrix made exactly symmetric, whatever the order of its sums."""
    return torch.tril(gram) + torch.tril(gram, -1).T
