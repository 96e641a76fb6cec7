"""Frozen dataclasses as JSON and back, checked, since what comes back may come from anywhere."""

from __future__ import annotations

import functools
import math
import types
import typing
from collections.abc import Mapping
from dataclasses import MISSING, asdict, fields, is_dataclass
from typing import TYPE_CHECKING, Any, TypeVar, cast

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["OnWire", "from_wire", "to_wire"]

T = TypeVar("T")


def to_wire(record: object) -> dict[str, Any]:
    """Return a dataclass as JSON has it, those in it included."""
    return asdict(record)  # type: ignore[call-overload, no-any-return]  # any dataclass


def from_wire(kind: type[T], data: object) -> T:
    """Return the dataclass that `to_wire` gave `data` for, read back from JSON.

    Raises:
        ValueError: If a key is unknown or missing, or a value has the wrong type or range.
    """
    return _read_record(kind, data, kind.__name__.lower())


class OnWire:
    """A dataclass that goes over the wire."""

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        return to_wire(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Return the one that `to_dict` gave `data` for.

        Raises:
            ValueError: If it is none.
        """
        return from_wire(cls, data)


def _read_record(kind: type[T], data: object, name: str) -> T:
    if not isinstance(data, Mapping):
        raise ValueError(f"`{name}` must be an object, got {data!r:.80}.")
    hints = _hints(cast(Any, kind))
    unknown = sorted(str(key) for key in data if key not in hints)
    if unknown:
        raise ValueError(f"`{name}` must have no key but {', '.join(hints)}, got {unknown[0]!r}.")
    required = [f.name for f in fields(cast(Any, kind)) if _is_required(f)]
    missing = [key for key in required if key not in data]
    if missing:
        raise ValueError(f"`{name}` must have the key {missing[0]!r}, got {sorted(data)}.")
    values = {key: _read(hints[key], value, f"{name}.{key}") for key, value in data.items()}
    return kind(**values)


@functools.cache
def _hints(kind: type) -> dict[str, Any]:
    return typing.get_type_hints(kind)


def _is_required(field: Any) -> bool:  # noqa: ANN401  # generic in its type
    return field.default is MISSING and field.default_factory is MISSING


def _read(hint: Any, value: object, name: str) -> object:  # noqa: ANN401  # a type, or a form of one
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (types.UnionType, typing.Union):
        if value is None and type(None) in arguments:
            return None
        (hint,) = (kind for kind in arguments if kind is not type(None))
        return _read(hint, value, name)
    if origin is tuple:
        if not isinstance(value, (list, tuple)):
            raise ValueError(f"`{name}` must be a list, got {value!r:.80}.")
        return tuple(_read(arguments[0], each, f"{name}[{i}]") for i, each in enumerate(value))
    if is_dataclass(hint):
        return _read_record(cast(type, hint), value, name)
    return _read_scalar(hint, value, name)


def _read_scalar(hint: type, value: object, name: str) -> object:
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    is_bool_for_int = hint is not bool and isinstance(value, bool)
    if not isinstance(value, hint) or is_bool_for_int:
        raise ValueError(f"`{name}` must be of type {hint.__name__}, got {value!r:.80}.")
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"`{name}` must be finite, got {value!r}.")
    return value
