"""The part of a state that is no tensor, as JSON and back, without a pickle."""

from __future__ import annotations

import json
import sys
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from lightning_elche.partition.errors import UnsupportedState
from lightning_elche.partition.tree_leaves import (
    MAX_SAFE_INT,
    Device,
    Dtype,
    Size,
    TensorRef,
    leaf_of,
    node_of_leaf,
)

__all__ = [
    "Device",
    "Dtype",
    "EncodedTree",
    "Size",
    "TensorRef",
    "decode_tree",
    "encode_tree",
    "pointer",
    "read_nodes",
    "subtree",
    "with_subtree",
    "without_subtree",
]

# Where Lightning keeps what a user has passed to a constructor, which may be anything.
DROPPABLE = ("/hyper_parameters/", "/datamodule_hyper_parameters/")
MAX_DEPTH = 100

Convert = Callable[[str, object], object]
Revive = Callable[[object], object]


@dataclass(frozen=True)
class EncodedTree:
    """A tree as bytes.

    Attributes:
        data: JSON in ASCII.
        dropped: JSON pointers of the hyperparameters that were left out.
    """

    data: bytes
    dropped: tuple[str, ...] = ()


def encode_tree(value: object, *, convert: Convert | None = None) -> EncodedTree:
    """Return `value` as JSON, from which `decode_tree` makes an equal value of the same types.

    Args:
        value: Plain Python and numpy values, nested.
        convert: Is called with the JSON pointer of every value and the value, and returns what is
            encoded in its place: a `TensorRef`, `Dtype`, `Device` or `Size` for what is not known
            here, the value itself otherwise.

    Raises:
        UnsupportedState: If a value has another type, even a subclass, except below
            `hyper_parameters`, where the entry is dropped.

    Example:
        >>> encode_tree({"epoch": 3, "betas": (0.9, 0.999)}).data
        b'{"epoch":3,"betas":{"$tuple":[0.9,0.999]}}'
    """
    encoder = _Encoder(convert or _as_it_is)
    node = encoder.node(value, "")
    return EncodedTree(data=_dump(node), dropped=tuple(encoder.dropped))


def decode_tree(data: bytes, *, revive: Revive | None = None) -> object:
    """Return the value that `encode_tree` has made `data` of.

    Args:
        data: The JSON.
        revive: Is called with every `TensorRef`, `Dtype`, `Device` and `Size`, and returns what
            takes its place.

    Raises:
        ValueError: If `encode_tree` cannot have made `data`.
    """
    return _Decoder(revive or _revive_nothing).value(read_nodes(data))


def read_nodes(data: bytes) -> object:
    """Return the JSON of a tree as plain lists, dicts and scalars, with its tags.

    Raises:
        ValueError: If it is not written as `encode_tree` writes it.
    """
    try:
        node: object = json.loads(data)
        is_canonical = _dump(node) == data
    except RecursionError as err:
        raise ValueError("the tree is nested too deep") from err
    if not is_canonical:
        raise ValueError("the tree is not in its canonical form")
    return node


def subtree(data: bytes, key: str) -> object:
    """Return the nodes of one entry of a tree; `None` if it has none."""
    nodes: dict[str, object] = json.loads(data)
    return nodes.get(key)


def with_subtree(data: bytes, key: str, nodes: object) -> bytes:
    """Return a tree with the nodes of one entry, in its place or behind the others."""
    return _dump({**json.loads(data), key: nodes})


def without_subtree(data: bytes, key: str) -> bytes:
    """Return a tree without one entry."""
    nodes: dict[str, object] = json.loads(data)
    nodes.pop(key, None)
    return _dump(nodes)


def _dump(node: object) -> bytes:
    # ASCII, since a text may hold lone surrogates, which UTF-8 cannot.
    return json.dumps(node, separators=(",", ":"), allow_nan=False).encode("ascii")


def _as_it_is(_path: str, value: object) -> object:
    return value


def _revive_nothing(value: object) -> object:
    return value


def pointer(parent: str, key: object) -> str:
    """Return the JSON pointer of the entry `key` of `parent`."""
    text = str(key)
    if "~" in text or "/" in text:
        text = text.replace("~", "~0").replace("/", "~1")
    return f"{parent}/{text}"


class _Encoder:
    def __init__(self, convert: Convert) -> None:
        self.dropped: list[str] = []
        self._convert = convert
        self._open: set[int] = set()

    def node(self, value: object, path: str) -> object:
        value = _plain(self._convert(path, value))
        if type(value) in (list, tuple, set, dict, OrderedDict, Counter):
            return self._enter(value, path)
        node = node_of_leaf(value)
        if node is None and value is not None:
            raise UnsupportedState(path or "/", _type_name(value))
        return node

    def _enter(self, value: object, path: str) -> object:
        if id(value) in self._open:
            raise UnsupportedState(path or "/", f"{_type_name(value)} that contains itself")
        if len(self._open) == MAX_DEPTH:
            raise UnsupportedState(path or "/", f"{_type_name(value)} below {MAX_DEPTH} others")
        self._open.add(id(value))
        try:
            return self._container(value, path)
        finally:
            self._open.remove(id(value))

    def _container(self, value: object, path: str) -> object:
        if isinstance(value, dict):
            return self._dict(value, path)
        assert isinstance(value, (list, tuple, set))
        nodes = [self.node(item, pointer(path, i)) for i, item in enumerate(value)]
        if isinstance(value, set):
            return {"$set": sorted(nodes, key=_dump)}
        return {"$tuple": nodes} if isinstance(value, tuple) else nodes

    def _dict(self, value: dict[object, object], path: str) -> object:
        is_plain = type(value) is dict and all(
            type(key) is str and not key.startswith("$") for key in value
        )
        if is_plain:
            return dict(self._entries(value, path))
        pairs = [[self.node(key, path), node] for key, node in self._entries(value, path)]
        tags: dict[type, str] = {OrderedDict: "$odict", Counter: "$counter"}
        return {tags.get(type(value), "$dict"): pairs}

    def _entries(self, value: dict[object, object], path: str) -> Iterator[tuple[object, object]]:
        for key, item in value.items():
            place = pointer(path, key)
            try:
                yield key, self.node(item, place)
            except UnsupportedState:
                if not f"{place}/".startswith(DROPPABLE):
                    raise
                self.dropped.append(place)


def _plain(value: object) -> object:
    """Return what an OmegaConf container holds, and any other value as it is."""
    omegaconf = sys.modules.get("omegaconf")  # a value of it cannot be there without it
    if omegaconf is not None and isinstance(value, omegaconf.Container):
        return omegaconf.OmegaConf.to_container(value, resolve=True)
    return value


def _type_name(value: object) -> str:
    kind = type(value)
    return (
        kind.__qualname__
        if kind.__module__ == "builtins"
        else f"{kind.__module__}.{kind.__qualname__}"
    )


class _Decoder:
    def __init__(self, revive: Revive) -> None:
        self._revive = revive

    def value(self, node: object) -> object:
        if isinstance(node, list):
            return [self.value(item) for item in node]
        if isinstance(node, dict):
            return self._object(node)
        if type(node) is int and abs(node) > MAX_SAFE_INT:
            raise ValueError(f"the number {node} is too large for a plain one")
        return node

    def _object(self, node: dict[str, object]) -> object:
        tags = [key for key in node if key.startswith("$")]
        if not tags:
            return {key: self.value(item) for key, item in node.items()}
        tag = tags[0]
        if len(node) != 1:
            raise ValueError(f"the tag {tag!r} does not stand alone")
        if tag in ("$tuple", "$set"):
            items = [self.value(item) for item in _list(node[tag], tag)]
            return tuple(items) if tag == "$tuple" else _hashed(set, items, tag)
        if tag in ("$dict", "$odict", "$counter"):
            return self._pairs(tag, _list(node[tag], tag))
        leaf = leaf_of(tag, node[tag])
        return self._revive(leaf) if isinstance(leaf, (TensorRef, Dtype, Device, Size)) else leaf

    def _pairs(self, tag: str, pairs: list[object]) -> object:
        if not all(isinstance(pair, list) and len(pair) == 2 for pair in pairs):
            raise ValueError(f"the tag {tag!r} must hold pairs")
        items = [[self.value(item) for item in _list(pair, tag)] for pair in pairs]
        if tag == "$counter":
            return _hashed(lambda pairs: Counter(dict(pairs)), items, tag)
        return _hashed(OrderedDict if tag == "$odict" else dict, items, tag)


def _list(node: object, tag: str) -> list[object]:
    if not isinstance(node, list):
        raise ValueError(f"the tag {tag!r} must hold a list")
    return node


def _hashed(kind: Callable[[Any], object], items: Iterable[object], tag: str) -> object:
    try:
        made = kind(items)
    except TypeError as err:
        raise ValueError(f"the tag {tag!r} holds a key that cannot be one") from err
    return made
