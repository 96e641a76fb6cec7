"""Whether a tensor holds NaN, also of types that numpy does not have."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from lightning_elche.partition.image import HostTensor

__all__ = ["has_nan"]

BLOCK = 1 << 16  # items; so that what is made of them stays in the cache


def has_nan(tensor: HostTensor) -> bool:
    """Return whether any item is NaN; infinities are none.

    Cost: O(bytes), one pass.
    """
    items = tensor.array().reshape(-1)
    blocks = (items[start : start + BLOCK] for start in range(0, items.size, BLOCK))
    return any(bool(_is_nan(tensor.dtype, block).any()) for block in blocks)


def _is_nan(dtype: str, block: npt.NDArray[np.generic]) -> npt.NDArray[np.bool_]:
    if block.dtype.kind in "fc":
        return np.isnan(block)  # type: ignore[no-any-return]  # of these kinds
    bits: npt.NDArray[np.unsignedinteger] = block.view(f"u{block.dtype.itemsize}")
    # All but the sign; the last finite number, or infinity where there is one.
    limits = {"BF16": (0x7FFF, 0x7F80), "F8_E5M2": (0x7F, 0x7C), "F8_E4M3": (0x7F, 0x7E)}
    mask, largest = limits.get(dtype, (0, 0))
    is_nan: npt.NDArray[np.bool_] = np.greater(bits & mask, largest)
    return is_nan
