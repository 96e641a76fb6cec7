"""The rules on one step."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

from lightning_elche.contracts.float32 import OVERFLOWS_AT, epoch_zero_limit, to_float32
from lightning_elche.contracts.gates import ids as gateids
from lightning_elche.contracts.gates.divergence import check_non_divergence
from lightning_elche.contracts.model import FieldSpec
from lightning_elche.contracts.records import StepLike
from lightning_elche.contracts.strictjson import number_of
from lightning_elche.contracts.values import (
    STEP_END,
    shown,
    type_problem,
    value_of,
)
from lightning_elche.contracts.verdicts import Abort, Violation

__all__ = [
    "FINITE_FIELDS",
    "HUNDRED_TO",
    "ONE_FROM",
    "ONE_TO",
    "SIX_FIELDS",
    "ZERO_FROM",
    "check_non_divergence",
    "check_step",
    "epoch_zero_limit",
    "is_clean",
    "non_finite_of",
    "step_violations",
]

SIX_FIELDS = (
    FieldSpec(name="step", type="u64"),
    FieldSpec(name="train_loss", type="f32"),
    FieldSpec(name="grad_norm", type="f32"),
    FieldSpec(name="lr", type="f32"),
    FieldSpec(name="tokens_per_sec", type="f32"),
    FieldSpec(name="gpu_util_pct", type="f32"),
)
FINITE_FIELDS = ("train_loss", "grad_norm", "lr")
RANGES = (("tokens_per_sec", math.inf), ("gpu_util_pct", 100.0), ("wall_ms", math.inf))

# The outermost 64-bit floats that round to a 32-bit 0, 100 and 1: ties go to those, they are even.
ZERO_FROM = -(2.0**-150)
HUNDRED_TO = 100.0 + 2.0**-18
ONE_FROM = 1.0 - 2.0**-25
ONE_TO = 1.0 + 2.0**-24


def check_step(
    record: Mapping[str, object] | StepLike, required: Sequence[FieldSpec] = SIX_FIELDS
) -> Violation | None:
    """Return the first rule that a record breaks on its own, `None` if it is clean.

    In this order: fields and their types, finite numbers, ranges, and the pair of losses 1.0 and
    1.0 that stands in for a step that never was.

    Args:
        record: The record.
        required: Fields that it must have.
    """
    return next(step_violations(record, required), None)


def step_violations(
    record: Mapping[str, object] | StepLike,
    required: Sequence[FieldSpec],
    *,
    expected_step: int | None = None,
) -> Iterator[Violation]:
    """Yield every rule that a record breaks on its own.

    Args:
        record: The record.
        required: Fields that it must have.
        expected_step: What to call it if it does not say.
    """
    own = value_of(record, "step")
    step = own if isinstance(own, int) and type_problem(own, "u64") is None else expected_step
    yield from _missing(record, required, step)
    yield from _unstable(record, step)
    yield from _out_of_range(record, step)
    yield from _placeholder(record, step)


def is_clean(record: StepLike) -> bool:
    """Return whether `check_step` finds nothing in a record whose fields have the right types.

    Compares without a cast: the bounds are those between which every 64-bit float is cast to a
    32-bit one that passes.
    """
    loss, norm, wall = record.train_loss, record.grad_norm, record.wall_ms
    return (
        0 <= record.step < STEP_END
        and -OVERFLOWS_AT < loss < OVERFLOWS_AT
        and -OVERFLOWS_AT < norm < OVERFLOWS_AT
        and -OVERFLOWS_AT < record.lr < OVERFLOWS_AT
        and ZERO_FROM <= record.tokens_per_sec < OVERFLOWS_AT
        and ZERO_FROM <= record.gpu_util_pct <= HUNDRED_TO
        and (wall is None or ZERO_FROM <= wall < OVERFLOWS_AT)
        and not (ONE_FROM <= loss <= ONE_TO and ONE_FROM <= norm <= ONE_TO)
    )


def non_finite_of(value: object) -> float | None:
    """Return a value as a 32-bit float, null and the text of a non-finite number included."""
    if value is None:
        return math.nan
    if isinstance(value, str):
        try:
            named = float(value)
        except ValueError:
            return None
        return None if math.isfinite(named) else named
    number = number_of(value)
    return None if number is None else to_float32(number)


def _where(step: int | None) -> str:
    return "" if step is None else f" at step {step}"


def _missing(
    record: Mapping[str, object] | StepLike, required: Sequence[FieldSpec], step: int | None
) -> Iterator[Violation]:
    for spec in required:
        problem = type_problem(value_of(record, spec.name), spec.type)
        if problem is not None:
            yield Violation(
                gate=gateids.METRICS,
                abort=Abort.METRIC_MISSING,
                message=f"METRIC_MISSING{_where(step)}: {spec.name} {problem}",
                step=step,
                field=spec.name,
            )


def _unstable(record: Mapping[str, object] | StepLike, step: int | None) -> Iterator[Violation]:
    for name in FINITE_FIELDS:
        own = value_of(record, name)
        value = non_finite_of(own)
        if value is not None and not math.isfinite(value):
            yield Violation(
                gate=gateids.INSTABILITY,
                abort=Abort.NUMERICAL_INSTABILITY,
                message=f"NUMERICAL_INSTABILITY{_where(step)}: {name} = "
                + ("null" if own is None else shown(value)),
                step=step,
                field=name,
                value=value,
            )


def _out_of_range(record: Mapping[str, object] | StepLike, step: int | None) -> Iterator[Violation]:
    for name, high in RANGES:
        number = number_of(value_of(record, name))
        value = None if number is None else to_float32(number)
        if value is None or (0.0 <= value <= high and value != math.inf):
            continue
        bounds = "[0, 100]" if high == 100.0 else "[0, inf)"
        yield Violation(
            gate=gateids.THROUGHPUT,
            abort=Abort.THROUGHPUT_OUT_OF_RANGE,
            message=f"THROUGHPUT_OUT_OF_RANGE{_where(step)}: {name} = {shown(value)} "
            f"outside {bounds}",
            step=step,
            field=name,
            value=value,
            limit=0.0 if value < 0.0 else high,
        )


def _placeholder(record: Mapping[str, object] | StepLike, step: int | None) -> Iterator[Violation]:
    numbers = (number_of(value_of(record, name)) for name in ("train_loss", "grad_norm"))
    if all(number is not None and to_float32(number) == 1.0 for number in numbers):
        yield Violation(
            gate=gateids.EXHAUST,
            abort=Abort.STREAM_EXHAUSTED,
            message=f"STREAM_EXHAUSTED{_where(step)}: placeholder (1.0, 1.0)",
            step=step,
            field="train_loss",
            value=1.0,
        )
