"""The values of a record, whatever they are: fields may be absent and of any type."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from lightning_elche.contracts.float32 import to_float32
from lightning_elche.contracts.records import StepLike, StepRecord
from lightning_elche.contracts.strictjson import float_of, number_of

__all__ = [
    "ABSENT",
    "STEP_END",
    "plain_record",
    "read_float",
    "shown",
    "step_of",
    "type_problem",
    "typed_record",
    "value_of",
]

ABSENT: Final = object()
STEP_END = 2**63
REQUIRED_NUMBERS = ("train_loss", "grad_norm", "lr", "tokens_per_sec", "gpu_util_pct")


def value_of(record: Mapping[str, object] | StepLike, name: str) -> object:
    """Return a field of a record, `ABSENT` if there is none."""
    if isinstance(record, Mapping):
        return record.get(name, ABSENT)
    return getattr(record, name, ABSENT)


def read_float(value: object) -> float:
    """Return a number of a state that was stored as JSON, with non-finite numbers as text."""
    number = float_of(value)
    if number is None:
        raise ValueError(f"`value` must be a number, got {value!r}. The state is not one of ours.")
    return number


def step_of(record: Mapping[str, object] | StepLike) -> int | None:
    """Return which step a record is of; `None` if it does not say."""
    step = value_of(record, "step")
    return step if isinstance(step, int) and type_problem(step, "u64") is None else None


def typed_record(record: Mapping[str, object] | StepLike) -> StepRecord | None:
    """Return a record if its fields have exactly the types of `StepRecord`, else `None`."""
    own = _record_of(record) if isinstance(record, Mapping) else record
    if not isinstance(own, StepRecord):
        return None
    is_typed = (
        type(own.step) is int
        and type(own.train_loss) is float
        and type(own.grad_norm) is float
        and type(own.lr) is float
        and type(own.tokens_per_sec) is float
        and type(own.gpu_util_pct) is float
        and (own.wall_ms is None or type(own.wall_ms) is float)
        and (own.epoch is None or type(own.epoch) is int)
    )
    return own if is_typed else None


def _record_of(fields: Mapping[str, Any]) -> StepRecord | None:
    try:
        return StepRecord(
            step=fields["step"],
            train_loss=fields["train_loss"],
            grad_norm=fields["grad_norm"],
            lr=fields["lr"],
            tokens_per_sec=fields["tokens_per_sec"],
            gpu_util_pct=fields["gpu_util_pct"],
            wall_ms=fields.get("wall_ms"),
            epoch=fields.get("epoch"),
        )
    except KeyError:
        return None


def plain_record(record: Mapping[str, object] | StepLike, *, step: int) -> StepRecord | None:
    """Return a record as plain numbers; `None` if a required one is none.

    Args:
        record: The record.
        step: Which step it counts as.
    """
    loss, norm, lr, speed, utilization = (
        number_of(value_of(record, name)) for name in REQUIRED_NUMBERS
    )
    if loss is None or norm is None or lr is None or speed is None or utilization is None:
        return None
    epoch = value_of(record, "epoch")
    return StepRecord(
        step=step,
        train_loss=loss,
        grad_norm=norm,
        lr=lr,
        tokens_per_sec=speed,
        gpu_util_pct=utilization,
        wall_ms=number_of(value_of(record, "wall_ms")),
        epoch=epoch if isinstance(epoch, int) and not isinstance(epoch, bool) else None,
    )


def shown(value: float) -> str:
    """Return the shortest decimal from which the 32-bit float can be read back."""
    single = to_float32(value)
    texts = (f"{single:.{digits}g}" for digits in range(6, 9))
    return next((text for text in texts if to_float32(float(text)) == single), f"{single:.9g}")


def type_problem(value: object, type_name: str) -> str | None:
    """Return what keeps `value` from being of the type "u64" or "f32"; `None` if nothing does."""
    if value is ABSENT:
        return "is absent"
    if type_name != "u64":
        return None if number_of(value) is not None else f"is {_kind(value)}"
    if isinstance(value, int) and not isinstance(value, bool):
        return None if 0 <= value < STEP_END else f"is {value}, outside [0, 2^63)"
    return f"is {value!r}, not an integer" if isinstance(value, float) else f"is {_kind(value)}"


def _kind(value: object) -> str:
    kinds = {type(None): "null", bool: "a boolean", str: "a string", dict: "an object"}
    kinds[list] = "an array"
    return kinds.get(type(value), f"of type {type(value).__name__}")
