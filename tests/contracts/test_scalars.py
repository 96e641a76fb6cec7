"""Scalars of YAML 1.2."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightning_elche.contracts.grammar.scalars import Scalar, plain_tag, scalar_value


def value_of(text: str) -> Scalar:
    """Return what `text` without quotes means."""
    return scalar_value(plain_tag(text), text)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("5e-5", 5e-5),
        ("1e3", 1000.0),
        ("1.", 1.0),
        (".5", 0.5),
        ("-1.5E+2", -150.0),
        ("010", 10),
        ("0o10", 8),
        ("0x1F", 31),
        ("+7", 7),
        ("-0", 0),
        ("true", True),
        ("FALSE", False),
        ("~", None),
        ("Null", None),
        ("", None),
    ],
)
def test_text_is_a_value_in_yaml_1_2(text: str, value: Scalar) -> None:
    """Numbers, booleans and nulls are those of the core schema, with their types."""
    assert (value_of(text), type(value_of(text))) == (value, type(value))


@pytest.mark.parametrize(
    "text",
    [
        *("yes", "no", "on", "off", "y", "n", "tRUE", "nULL", "2026-12-31", "1:30", "1:30:00"),
        *(
            "1_000",
            "1.5.0",
            "0b11",
            "0O10",
            "-0x1F",
            "+0o7",
            "1e",
            "e5",
            "5e",
            ".",
            "-",
            "+",
            "...",
        ),
        *("NaN", "nan", "inf", "Infinity", "-.nan", ".Nan", "0x", "0o8", "1 2", "2*ln(vocab_size)"),
        "\N{ARABIC-INDIC DIGIT SEVEN}",
    ],
)
def test_text_stays_text_in_yaml_1_2(text: str) -> None:
    """What only YAML 1.1 or other languages read as a value is text."""
    assert value_of(text) == text


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (".inf", math.inf),
        ("+.Inf", math.inf),
        ("-.INF", -math.inf),
        ("1e400", math.inf),
        ("-1e400", -math.inf),
        ("9" * 400, math.inf),
        ("-" + "9" * 400, -math.inf),
        ("9" * 100_000, math.inf),
        ("-" + "9" * 100_000, -math.inf),
        ("0x" + "f" * 100_000, math.inf),
    ],
)
def test_number_too_large_is_infinite(text: str, value: float) -> None:
    """A number that no float can hold is infinite, however many digits it has."""
    assert value_of(text) == value


@pytest.mark.parametrize("text", [".nan", ".NaN", ".NAN"])
def test_nan_has_three_spellings(text: str) -> None:
    """NaN is written with a dot."""
    value = value_of(text)
    assert isinstance(value, float)
    assert math.isnan(value)


@given(number=st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(10**300), 10**300))
def test_number_is_read_back_as_it_was_written(number: float) -> None:
    """Every finite number that Python writes is read as the same number."""
    assert value_of(repr(number)) == number


@given(text=st.text("0123456789abcdefxonul_+-.:~ ", max_size=20))
def test_any_text_has_a_value(text: str) -> None:
    """No text is an error."""
    assert isinstance(value_of(text), str | int | float | None)
