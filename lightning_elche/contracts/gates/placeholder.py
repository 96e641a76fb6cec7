"""Epochs that were never trained: made-up numbers in the place of results."""

from __future__ import annotations

from lightning_elche.contracts.float32 import to_float32
from lightning_elche.contracts.records import EpochRecord
from lightning_elche.contracts.verdicts import Verdict

__all__ = ["judge_placeholder"]

E_SINGLE = 2.7182817459106445  # e as a 32-bit float
E_ULP = 2.0**-22
SURELY_TOO_FAST_S = 1.0
TOO_FAST_ON_CPU_S = 10.0


def judge_placeholder(record: EpochRecord, *, device: str | None) -> Verdict:
    """Return FAIL if an epoch is a placeholder, INDETERMINATE if that depends on the device.

    It is one if its loss and its gradient norm are 1, its perplexity is e, and it took no time: on
    a CPU less than 10 s, else less than 1 s. One of these alone proves nothing.

    Args:
        record: The epoch.
        device: Such as "cpu" or "cuda"; `None` if nobody knows.
    """
    is_suspect = (
        to_float32(record.train_loss) == 1.0
        and to_float32(record.grad_norm_max) == 1.0
        and abs(to_float32(record.train_ppl) - E_SINGLE) <= E_ULP
        and record.wall_seconds < TOO_FAST_ON_CPU_S
    )
    kind = (device or "").partition(":")[0]
    if not is_suspect or (kind == "cuda" and record.wall_seconds >= SURELY_TOO_FAST_S):
        return Verdict.PASS
    if kind == "cpu" or record.wall_seconds < SURELY_TOO_FAST_S:
        return Verdict.FAIL
    return Verdict.INDETERMINATE
