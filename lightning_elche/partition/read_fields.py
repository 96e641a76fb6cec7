"""Readers of the fields of a manifest: each takes a JSON value and says what is wrong with it."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

__all__ = [
    "Reader",
    "boolean",
    "choice",
    "count",
    "hex_float",
    "lanes",
    "list_of",
    "mapping_of",
    "optional",
    "record",
    "scalar",
    "sha256",
    "text",
    "word",
]

# Takes a value and its JSON pointer, and returns what it means.
Reader = Callable[[object, str], Any]

MAX_COUNT = 2**63 - 1
HEX_FLOAT = re.compile(r"-?0x[01]\.[0-9a-f]{1,13}p[+-][0-9]{1,4}|nan|-?inf")


def count(node: object, at: str) -> int:
    """Return a number from 0 on."""
    if type(node) is not int or not 0 <= node <= MAX_COUNT:
        raise _wrong(at, "a number from 0 on", node)
    return node


def text(node: object, at: str) -> str:
    """Return a text."""
    if not isinstance(node, str):
        raise _wrong(at, "a text", node)
    return node


def boolean(node: object, at: str) -> bool:
    """Return a truth value."""
    if not isinstance(node, bool):
        raise _wrong(at, "true or false", node)
    return node


def scalar(node: object, at: str) -> str | int | bool | None:
    """Return a text, an integer, a truth value or nothing."""
    if not isinstance(node, (str, int, bool, type(None))):
        raise _wrong(at, "a text, an integer, true, false or null", node)
    return node


def sha256(node: object, at: str) -> str:
    """Return a digest in hexadecimal."""
    return _matching(r"[0-9a-f]{64}", "64 lower-case hex digits", node, at)


def word(node: object, at: str) -> int:
    """Return a 64-bit number that is written in hexadecimal."""
    return int(_matching(r"0x[0-9a-f]{16}", "0x and 16 lower-case hex digits", node, at), 16)


def hex_float(node: object, at: str) -> float:
    """Return a float that is written in hexadecimal."""
    if not isinstance(node, str) or not HEX_FLOAT.fullmatch(node):
        raise _wrong(at, "a float in hexadecimal", node)
    try:
        return float.fromhex(node)
    except OverflowError as err:
        raise _wrong(at, "a float in hexadecimal", node) from err


def lanes(node: object, at: str) -> tuple[int, int]:
    """Return two 64-bit numbers."""
    if not isinstance(node, list) or len(node) != 2:
        raise _wrong(at, "two words", node)
    return word(node[0], f"{at}/0"), word(node[1], f"{at}/1")


def choice(*allowed: str) -> Reader:
    """Return a reader of one of some texts."""

    def read(node: object, at: str) -> object:
        if node not in allowed:
            raise _wrong(at, f"one of {', '.join(allowed)}", node)
        return node

    return read


def optional(reader: Reader) -> Reader:
    """Return a reader that lets null pass."""
    return lambda node, at: None if node is None else reader(node, at)


def list_of(reader: Reader) -> Reader:
    """Return a reader of a list."""

    def read(node: object, at: str) -> object:
        if not isinstance(node, list):
            raise _wrong(at, "a list", node)
        return tuple(reader(item, f"{at}/{i}") for i, item in enumerate(node))

    return read


def mapping_of(reader: Reader, *, keys: str = "(?s).*") -> Reader:
    """Return a reader of an object whose keys match an expression."""

    def read(node: object, at: str) -> object:
        if not isinstance(node, dict):
            raise _wrong(at, "an object", node)
        for key in node:
            if not re.fullmatch(keys, key):
                raise _wrong(at, f"an object with keys like {keys}", key)
        return {key: reader(item, f"{at}/{key}") for key, item in node.items()}

    return read


def record(fields: Mapping[str, Reader]) -> Reader:
    """Return a reader of an object with exactly these keys."""

    def read(node: object, at: str) -> object:
        if not isinstance(node, dict):
            raise _wrong(at, "an object", node)
        for key in fields.keys() - node.keys():
            raise ValueError(f"{at}/{key} is missing")
        for key in node.keys() - fields.keys():
            raise ValueError(f"{at}/{key} is not known")
        return {key: reader(node[key], f"{at}/{key}") for key, reader in fields.items()}

    return read


def _matching(pattern: str, expected: str, node: object, at: str) -> str:
    if not isinstance(node, str) or not re.fullmatch(pattern, node):
        raise _wrong(at, expected, node)
    return node


def _wrong(at: str, expected: str, node: object) -> ValueError:
    shown = repr(node)
    return ValueError(f"{at} must be {expected}, got {shown[:80]}")
