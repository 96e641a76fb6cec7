"""One line of a step log, read slowly: whatever is wrong with it is found and located."""

from __future__ import annotations

import json
from typing import Final

from lightning_elche.contracts.gates.steps import SIX_FIELDS

__all__ = ["WHITESPACE", "BrokenLine", "decode_line"]

WHITESPACE: Final = " \t\r\n"
# Here a number that JSON does not know is judged by the gates instead.
MEASURED = frozenset({*(spec.name for spec in SIX_FIELDS), "wall_ms"})


class BrokenLine(ValueError):
    """A line that holds no record.

    Attributes:
        reason: What is wrong.
        column: Where, from 1, in code points.
        offset: Where, from 0, in bytes from the begin of the line.
        may_be_torn: Whether it may be the begin of a good line.
    """

    def __init__(self, reason: str, *, before: bytes = b"", may_be_torn: bool = False) -> None:
        super().__init__(reason)
        self.reason = reason
        self.column = len(before.decode("utf-8", "replace")) + 1
        self.offset = len(before)
        self.may_be_torn = may_be_torn


class _Constant(float):
    """A number that Python reads and JSON does not know."""


def decode_line(line: bytes) -> dict[str, object]:
    """Return the record on a line; `NaN` and infinities stay in fields that gates judge.

    Raises:
        BrokenLine: If there is none.
    """
    if b"\0" in line:
        reason = "NUL bytes: this part of the file was never written"
        raise BrokenLine(reason, before=line[: line.find(b"\0")])
    try:
        text = line.decode("utf-8")
    except UnicodeDecodeError as err:
        reason = f"not UTF-8: {err.reason}"
        raise BrokenLine(reason, before=line[: err.start], may_be_torn=True) from err
    record = _decode_text(text.rstrip(WHITESPACE))
    if not isinstance(record, dict):
        raise BrokenLine("not a JSON object")
    return record


def _decode_text(text: str) -> object:
    constants: list[str] = []

    def constant(token: str) -> float:
        constants.append(token)
        return _Constant(token)

    decoder = json.JSONDecoder(object_pairs_hook=_without_duplicates, parse_constant=constant)
    start = len(text) - len(text.lstrip(WHITESPACE))
    try:
        document, end = decoder.raw_decode(text, start)
    except json.JSONDecodeError as err:
        before = text[: err.pos].encode()
        raise BrokenLine(f"not JSON: {err.msg}", before=before, may_be_torn=True) from err
    except RecursionError as err:
        raise BrokenLine("nested too deeply") from err
    except ValueError as err:  # a key that is there twice, an integer of thousands of digits
        raise BrokenLine(str(err)) from err
    if end < len(text):
        is_document = text[end:].lstrip(WHITESPACE).startswith("{")
        reason = "more than one JSON document on a line" if is_document else "not JSON: Extra data"
        raise BrokenLine(reason, before=text[:end].encode())
    return _with_constants(document, constants) if constants else document


def _without_duplicates(pairs: list[tuple[str, object]]) -> dict[str, object]:
    record = dict(pairs)
    if len(record) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"key {json.dumps(twice)} is there twice")
    return record


def _with_constants(document: object, constants: list[str]) -> object:
    """Make plain numbers of the constants in measured fields; there must be no others."""
    record = document if isinstance(document, dict) else {}
    allowed = {key: float(record[key]) for key in MEASURED if type(record.get(key)) is _Constant}
    if len(allowed) < len(constants):
        raise BrokenLine(f"not JSON: {', '.join(sorted(set(constants)))} outside a measured field")
    return {**record, **allowed}
