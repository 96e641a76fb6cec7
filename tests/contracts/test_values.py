"""Tests of reading values whose types nobody has promised."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightning_elche.contracts.float32 import to_float32
from lightning_elche.contracts.strictjson import number_of
from lightning_elche.contracts.values import (
    ABSENT,
    plain_record,
    read_float,
    shown,
    step_of,
    type_problem,
    typed_record,
    value_of,
)
from tests.contracts import sample_runs
from tests.contracts.sample_runs import fields_of


@pytest.mark.parametrize(
    ("value", "expected"),
    [(1, 1.0), (2.5, 2.5), (True, None), ("1", None), (None, None), ([1], None), (ABSENT, None)],
)
def test_number_is_read_only_from_numbers(value: object, expected: float | None) -> None:
    """Integers and floats are numbers; booleans, text, null and what is absent are not."""
    assert number_of(value) == expected


def test_number_is_infinite_for_an_integer_too_large_for_a_float() -> None:
    """An integer beyond the range of floats is infinite, with its sign."""
    assert number_of(10**400) == math.inf
    assert number_of(-(10**400)) == -math.inf


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        (0, None),
        (2**63 - 1, None),
        (2**63, "is 9223372036854775808, outside [0, 2^63)"),
        (-1, "is -1, outside [0, 2^63)"),
        (1.0, "is 1.0, not an integer"),
        (True, "is a boolean"),
        ("1", "is a string"),
        (None, "is null"),
        (ABSENT, "is absent"),
        ([], "is an array"),
        ({}, "is an object"),
        (b"", "is of type bytes"),
    ],
)
def test_integer_is_required_for_u64(value: object, problem: str | None) -> None:
    """A u64 is an integer from 0 to 2^63 - 1, and nothing that only looks like one."""
    assert type_problem(value, "u64") == problem


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        (0.5, None),
        (3, None),
        (math.nan, None),
        (False, "is a boolean"),
        ("0.5", "is a string"),
        (None, "is null"),
        (ABSENT, "is absent"),
    ],
)
def test_number_is_required_for_f32(value: object, problem: str | None) -> None:
    """An f32 is any number, also one that is not finite: that is for another rule to judge."""
    assert type_problem(value, "f32") == problem


@pytest.mark.parametrize(
    ("value", "text"),
    [(7.1, "7.1"), (31.99, "31.99"), (10.0, "10"), (math.nan, "nan"), (-math.inf, "-inf")],
)
def test_number_is_shown_as_it_was_written(value: float, text: str) -> None:
    """A number is shown with as many digits as it needs, although 32 bits hold a neighbour."""
    assert shown(value) == text


@given(st.floats(width=32, allow_nan=False))
def test_number_can_be_read_back_from_what_is_shown(value: float) -> None:
    """What is shown of a 32-bit float gives the same 32-bit float."""
    assert to_float32(float(shown(value))) == value


def test_value_is_absent_for_a_field_that_is_not_there() -> None:
    """Neither a mapping nor an object has a field that nobody gave it."""
    assert value_of({}, "lr") is ABSENT
    assert value_of(sample_runs.step_of(), "temperature") is ABSENT


@pytest.mark.parametrize("step", [..., None, "3", 3.0, True, -1, 2**63])
def test_step_is_unknown_unless_it_is_a_u64(step: object) -> None:
    """A record with anything but a u64 as its step does not say which step it is of."""
    assert step_of(fields_of(step=step)) is None


@pytest.mark.parametrize(
    "changes",
    [{"train_loss": 1}, {"wall_ms": 1}, {"epoch": 0.0}, {"lr": None}, {"step": True}, {"lr": ...}],
)
def test_record_is_not_typed_with_a_field_of_another_type(changes: dict[str, object]) -> None:
    """A record is typed only if each field has exactly its type."""
    assert typed_record(fields_of(**changes)) is None


def test_record_is_typed_with_further_fields() -> None:
    """Further fields of a mapping do not matter."""
    assert typed_record(fields_of(5, note="x")) == sample_runs.step_of(5)


def test_record_is_plain_with_integers_and_strange_extras() -> None:
    """Integers are numbers, and optional fields of another type are left out."""
    record = plain_record(fields_of(7, train_loss=2, wall_ms="x", epoch=True), step=7)
    assert record == sample_runs.step_of(7, train_loss=2.0, wall_ms=None, epoch=None)


def test_record_is_not_plain_without_a_required_number() -> None:
    """A record that lacks a required number cannot be added up."""
    assert plain_record(fields_of(lr="x"), step=0) is None


def test_state_is_refused_if_a_number_is_none() -> None:
    """A state that has something else where a number should be is not one of ours."""
    assert read_float("-inf") == -math.inf
    with pytest.raises(ValueError, match="`value` must be a number, got 'x'"):
        read_float("x")
