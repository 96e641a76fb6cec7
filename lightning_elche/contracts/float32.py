"""Numbers as a 32-bit float holds them, which is how training logs them and gates compare them."""

from __future__ import annotations

import ctypes
import math

__all__ = [
    "FLOAT32_MAX",
    "OVERFLOWS_AT",
    "epoch_zero_limit",
    "format_float32",
    "perplexity",
    "to_float32",
]

FLOAT32_MAX = (2.0 - 2.0**-23) * 2.0**127
OVERFLOWS_AT = (2.0 - 2.0**-24) * 2.0**127  # half a unit in the last place above the maximum
FINETUNE_LIMIT = 10.0


def to_float32(value: float) -> float:
    """Return the nearest 32-bit float, ties to even; infinite from `OVERFLOWS_AT` on."""
    return ctypes.c_float(value).value


def format_float32(value: float) -> str:
    """Return the shortest fixed precision from which every 32-bit float can be read back."""
    return f"{value:.9g}"


def perplexity(loss: float) -> float:
    """Return `exp(loss)` as a 32-bit float, at most the largest finite one."""
    try:
        return min(to_float32(math.exp(loss)), FLOAT32_MAX)
    except OverflowError:
        return FLOAT32_MAX


def epoch_zero_limit(mode: str, vocab_size: int | None) -> float:
    """Return the largest validation loss that the first epoch may have.

    Args:
        mode: "finetune": 10. "from_scratch": twice the loss of uniform guessing, `2 ln(V)`.
        vocab_size: Number of tokens V; below 2 it counts as 2.

    Raises:
        ValueError: If `mode` is "from_scratch" and `vocab_size` is `None`.
    """
    if mode != "from_scratch":
        return FINETUNE_LIMIT
    if vocab_size is None:
        raise ValueError('`vocab_size` must be a number for `mode="from_scratch"`, got None.')
    return 2.0 * to_float32(math.log(to_float32(max(vocab_size, 2))))
