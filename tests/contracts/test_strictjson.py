"""Strict JSON."""

from __future__ import annotations

import json
import math

import pytest

from lightning_elche.contracts.strictjson import dump_strictly, float_of


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ({"a": math.nan}, b'{"a": "nan"}\n'),
        ({"a": (math.inf, [-math.inf, 1.5])}, b'{"a": ["inf", ["-inf", 1.5]]}\n'),
        ({"name": "\u00e9\n"}, b'{"name": "\xc3\xa9\\n"}\n'),
        ({"tail": "\udcff"}, b'{"tail": "\\udcff"}\n'),
    ],
)
def test_dump_is_one_line_that_any_reader_takes(value: object, text: bytes) -> None:
    """Numbers that JSON does not know become text, and line ends are escaped."""
    assert dump_strictly(value) == text
    json.loads(text, parse_constant=pytest.fail)


@pytest.mark.parametrize("value", [1.5, 0.0, -2.0, math.inf, -math.inf])
def test_number_is_found_again(value: float) -> None:
    """A number that was written is read, finite or not."""
    assert float_of(json.loads(dump_strictly(value))) == value


def test_nan_is_found_again() -> None:
    """A NaN comes back as one."""
    assert math.isnan(float_of(json.loads(dump_strictly(math.nan))) or 0.0)


def test_integer_that_no_float_can_hold_is_infinite() -> None:
    """JSON knows no limit."""
    assert (float_of(10**400), float_of(-(10**400))) == (math.inf, -math.inf)


@pytest.mark.parametrize("value", [True, None, "1.5", "NaN", [1.0]])
def test_other_values_are_no_numbers(value: object) -> None:
    """Only what the writer would have written counts as a number."""
    assert float_of(value) is None
