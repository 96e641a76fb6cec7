"""Values without parts, as JSON and back."""

from __future__ import annotations

import base64
import math
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

__all__ = ["MAX_SAFE_INT", "Device", "Dtype", "Size", "TensorRef", "leaf_of", "node_of_leaf"]

MAX_SAFE_INT = 2**53 - 1  # above, readers of JSON that only know doubles round


@dataclass(frozen=True)
class TensorRef:
    """The place of a tensor: `name` is "group/tensor"."""

    name: str


@dataclass(frozen=True)
class Dtype:
    """A data type of torch, such as "float32"."""

    name: str


@dataclass(frozen=True)
class Device:
    """A device of torch, such as "cuda:0"."""

    name: str


@dataclass(frozen=True)
class Size:
    """A shape of torch."""

    sizes: tuple[int, ...]


def node_of_leaf(value: object) -> object:
    """Return the JSON of a value that has no parts; `None` if its type is not known."""
    if isinstance(value, (np.ndarray, np.generic)):
        return _node_of_numpy(value)
    encode = _NODES.get(type(value))
    return None if encode is None else encode(value)


def leaf_of(tag: str, node: object) -> object:
    """Return the value that was encoded with `tag`.

    Raises:
        ValueError: If there is no such tag, or `node` is not what it holds.
    """
    if tag not in _LEAVES:
        raise ValueError(f"the tag {tag!r} is not known")
    try:
        return _LEAVES[tag](node)
    except (TypeError, ValueError, AttributeError, struct.error) as err:
        raise ValueError(f"the tag {tag!r} does not hold what it must: {err}") from err


def _node_of_int(value: int) -> object:
    return value if abs(value) <= MAX_SAFE_INT else {"$int": hex(value)}


def _node_of_float(value: float) -> object:
    return value if math.isfinite(value) else {"$f": _bits(value)}


def _bits(value: float) -> str:
    """Return the bits of a double, which tell one NaN from another."""
    return struct.pack(">d", value).hex()


def _double(text: object) -> float:
    return float(struct.unpack(">d", bytes.fromhex(_text(text)))[0])


def _node_of_numpy(value: np.ndarray | np.generic) -> object:
    array = np.asarray(value)
    # Extended precision differs between machines; texts and objects have no fixed bytes.
    is_portable = array.dtype.kind in "biufc" and array.dtype.itemsize <= 8 + 8 * (
        array.dtype.kind == "c"
    )
    if not is_portable or (isinstance(value, np.ndarray) and type(value) is not np.ndarray):
        return None
    array = array.astype(array.dtype.newbyteorder("<"))
    shape = list(array.shape) if isinstance(value, np.ndarray) else None
    return {"$np": [array.dtype.str, shape, base64.b64encode(array.tobytes()).decode("ascii")]}


def _numpy(node: object) -> object:
    if not (isinstance(node, list) and len(node) == 3):
        raise ValueError("three items are needed")
    name, shape, data = node
    dtype = np.dtype(_text(name))
    if dtype.kind not in "biufc" or dtype.str != name:
        raise ValueError(f"{name!r} is no data type of a number")
    flat = np.frombuffer(_base64(data), dtype=dtype)
    array = flat.reshape(() if shape is None else tuple(_sizes(shape))).copy()
    return array[()] if shape is None else array


def _base64(node: object) -> bytes:
    return base64.b64decode(_text(node), validate=True)


def _text(node: object) -> str:
    if not isinstance(node, str):
        raise TypeError(f"a text is needed, got {node!r}")
    return node


def _sizes(node: object) -> list[int]:
    if not (isinstance(node, list) and all(type(item) is int and item >= 0 for item in node)):
        raise ValueError(f"a list of sizes is needed, got {node!r}")
    return node


def _complex(node: object) -> complex:
    if not (isinstance(node, list) and len(node) == 2):
        raise ValueError("two items are needed")
    return complex(_double(node[0]), _double(node[1]))


_NODES: dict[type, Callable[..., object]] = {
    type(None): lambda value: value,
    bool: lambda value: value,
    str: lambda value: value,
    int: _node_of_int,
    float: _node_of_float,
    complex: lambda value: {"$c": [_bits(value.real), _bits(value.imag)]},
    bytes: lambda value: {"$bytes": base64.b64encode(value).decode("ascii")},
    type(Path()): lambda value: {"$path": str(value)},
    TensorRef: lambda value: {"$t": value.name},
    Dtype: lambda value: {"$dtype": value.name},
    Device: lambda value: {"$device": value.name},
    Size: lambda value: {"$size": list(value.sizes)},
}

_LEAVES: dict[str, Callable[[object], object]] = {
    "$int": lambda node: int(_text(node), 16),
    "$f": _double,
    "$c": _complex,
    "$bytes": _base64,
    "$path": lambda node: Path(_text(node)),
    "$np": _numpy,
    "$t": lambda node: TensorRef(_text(node)),
    "$dtype": lambda node: Dtype(_text(node)),
    "$device": lambda node: Device(_text(node)),
    "$size": lambda node: Size(tuple(_sizes(node))),
}
