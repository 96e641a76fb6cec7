"""Whether many steps are clean, at the speed of the built-in functions on lists and bytes."""

from __future__ import annotations

import struct
import sys
from dataclasses import dataclass

from lightning_elche.contracts.gates.steps import HUNDRED_TO, ONE_FROM, ONE_TO, ZERO_FROM
from lightning_elche.contracts.records import StepColumns

__all__ = ["ColumnTotals", "totals_if_clean"]

# Sign and the upper 7 of 8 exponent bits of a 32-bit float.
TOP_BYTES = slice(3 if sys.byteorder == "little" else 0, None, 4)
HUGE = 0x7F  # top byte of all numbers from 2**127 on, of infinity and of NaN
NEGATIVE_HUGE = 0xFF
ONE = struct.pack("f", 1.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class ColumnTotals:
    """Extremes and sums of columns, found on the way.

    Attributes:
        grad_norm_min: Smallest gradient norm if it is negative, else 0.
        grad_norm_max: Largest gradient norm.
        lr_min: Smallest learning rate if it is negative, else 0.
        lr_max: Largest learning rate.
        util_min: Smallest utilization of the GPU.
        util_max: Largest utilization.
        util_sum: Sum of all.
    """

    grad_norm_min: float
    grad_norm_max: float
    lr_min: float
    lr_max: float
    util_min: float
    util_max: float
    util_sum: float


def totals_if_clean(columns: StepColumns) -> ColumnTotals | None:
    """Return the totals of columns with at least one step if every step is clean.

    `None` does not mean that one is not: huge numbers and negative zeros are not looked at
    closely.
    """
    try:
        losses, norms, rates = map(_to_singles, (columns.train_loss, columns.grad_norm, columns.lr))
        clocks = [_to_singles(own) for own in (columns.tokens_per_sec, columns.wall_ms or ())]
    except (OverflowError, struct.error):  # an integer too large for a float; no number at all
        return None
    if not (
        all(map(_is_finite, (losses, norms, rates)))
        and all(_is_finite(clock) and _is_positive(clock) for clock in clocks)
        and not _has_placeholder(columns, losses, norms)
    ):
        return None
    util = columns.gpu_util_pct
    totals = ColumnTotals(
        grad_norm_min=0.0 if _is_positive(norms) else min(columns.grad_norm),
        grad_norm_max=max(columns.grad_norm),
        lr_min=0.0 if _is_positive(rates) else min(columns.lr),
        lr_max=max(columns.lr),
        util_min=min(util),
        util_max=max(util),
        util_sum=sum(util),
    )
    return totals if _is_utilization(totals) else None


def _to_singles(column: list[float] | tuple[()]) -> bytes:
    return struct.pack(f"{len(column)}f", *column)


def _is_finite(singles: bytes) -> bool:
    tops = singles[TOP_BYTES]
    return HUGE not in tops and NEGATIVE_HUGE not in tops


def _is_positive(singles: bytes) -> bool:
    return singles[TOP_BYTES].isascii()  # that is, no byte has the highest bit, which is the sign


def _is_utilization(totals: ColumnTotals) -> bool:
    # A NaN can hide from `min` and `max`, but not from a sum.
    is_number = totals.util_sum == totals.util_sum
    return is_number and totals.util_min >= ZERO_FROM and totals.util_max <= HUNDRED_TO


def _has_placeholder(columns: StepColumns, losses: bytes, norms: bytes) -> bool:
    """Return whether a step has a loss and a gradient norm that are both a 32-bit 1."""
    if ONE not in losses or ONE not in norms:
        return False
    pairs = zip(columns.train_loss, columns.grad_norm, strict=True)
    return any(ONE_FROM <= loss <= ONE_TO and ONE_FROM <= norm <= ONE_TO for loss, norm in pairs)
