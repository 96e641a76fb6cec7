"""A step as a line of the log, fast: it is written at every step."""

from __future__ import annotations

import math
import struct

from lightning_elche.contracts.records import StepRecord

__all__ = ["format_step"]

FIELDS = struct.Struct("5f")  # in native order, where an overflow is no error but infinite


def format_step(record: StepRecord, *, attempt: int) -> bytes:
    """Return `record` as a line of JSON, its numbers as 32-bit floats.

    Args:
        record: The step.
        attempt: Written if the record does not say which attempt it belongs to.

    Raises:
        ValueError: If a number is not finite, which JSON cannot say.
    """
    loss, norm, lr, speed, utilization = numbers = FIELDS.unpack(
        FIELDS.pack(
            record.train_loss,
            record.grad_norm,
            record.lr,
            record.tokens_per_sec,
            record.gpu_util_pct,
        )
    )
    # 32-bit floats cannot overflow a 64-bit sum: it is finite if and only if they all are.
    if not math.isfinite(sum(numbers, record.wall_ms or 0.0)):
        raise ValueError(
            f"`record` must hold finite 32-bit numbers, got {record}. Judge a step before it is "
            "logged: a poisoned one is never written."
        )
    wall = "" if record.wall_ms is None else f',"wall_ms":{record.wall_ms:.9g}'
    epoch = "" if record.epoch is None else f',"epoch":{record.epoch}'
    own = attempt if record.attempt is None else record.attempt
    return (
        f'{{"step":{record.step},"train_loss":{loss:.9g},"grad_norm":{norm:.9g},"lr":{lr:.9g},'
        f'"tokens_per_sec":{speed:.9g},"gpu_util_pct":{utilization:.9g}{wall}{epoch},'
        f'"attempt":{own}}}\n'
    ).encode("ascii")
