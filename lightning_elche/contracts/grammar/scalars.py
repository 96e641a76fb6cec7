"""What a plain YAML scalar means, by the core schema of YAML 1.2.

PyYAML follows YAML 1.1, where `yes` is true, `1:30` is 90, `010` is 8 and `5e-5` is text.
"""

from __future__ import annotations

import math
import re
import sys

__all__ = ["BOOLEAN", "NULL", "NUMBER", "STRING", "Scalar", "plain_tag", "scalar_value"]

Scalar = str | int | float | bool | None

STRING, NUMBER, BOOLEAN, NULL = "str", "number", "bool", "null"
WORDS = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL"), NULL),
    **dict.fromkeys(("true", "True", "TRUE", "false", "False", "FALSE"), BOOLEAN),
}
FIRST_OF_NUMBER = frozenset("+-.0123456789")
INTEGER = re.compile(r"(?:[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+)")
NUMBER_TEXT = re.compile(
    rf"{INTEGER.pattern}"
    r"|[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?"
    r"|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)"
)
# Whatever has more digits is above the largest float; `int` is slow or refuses there.
MOST_DIGITS = 400
LARGEST = int(sys.float_info.max)
BASES = {"0o": 8, "0x": 16}


def plain_tag(text: str) -> str:
    """Return what a scalar without quotes is: "str", "number", "bool" or "null"."""
    if text[:1] in FIRST_OF_NUMBER and NUMBER_TEXT.fullmatch(text):
        return NUMBER
    return WORDS.get(text, STRING)


def scalar_value(tag: str, text: str) -> Scalar:
    """Return the value of a scalar; a number too large for a float is infinite."""
    if tag == NUMBER:
        return _number(text)
    if tag == BOOLEAN:
        return text[0] in "tT"
    return None if tag == NULL else text


def _number(text: str) -> int | float:
    if INTEGER.fullmatch(text) is None:
        return float(text.replace(".", "", 1) if text[-1] in "fFnN" else text)
    infinity = -math.inf if text[0] == "-" else math.inf
    if len(text) > MOST_DIGITS:
        return infinity
    value = int(text, BASES.get(text[:2], 10))
    return value if abs(value) <= LARGEST else infinity
