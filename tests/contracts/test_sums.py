"""Tests of sums that lose nothing of small terms."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightning_elche.contracts.gates.sums import CompensatedSum
from lightning_elche.contracts.strictjson import jsonable


def _sum_of(terms: list[float]) -> CompensatedSum:
    total = CompensatedSum()
    for term in terms:
        total.add(term)
    return total


def test_small_terms_are_kept_beside_a_large_one() -> None:
    """A term far below the precision of the sum counts once the large one is gone."""
    assert _sum_of([1.0, 1e100, 1.0, -1e100]).value == 2.0


@given(st.lists(st.floats(min_value=0.0, max_value=1e6), max_size=200))
def test_sum_is_that_of_exact_addition(terms: list[float]) -> None:
    """The sum of numbers of one sign is the exact one, but for the last rounding."""
    assert _sum_of(terms).value == pytest.approx(math.fsum(terms), rel=1e-15)


@given(st.lists(st.floats(allow_nan=False), max_size=5), st.lists(st.floats(-1e6, 1e6), max_size=5))
def test_sum_goes_on_from_its_state(before: list[float], after: list[float]) -> None:
    """A sum restored from JSON goes on as if nothing had happened."""
    whole, first = _sum_of(before + after), _sum_of(before)
    second = CompensatedSum()
    second.load_state_dict(json.loads(json.dumps(jsonable(first.state_dict()))))
    for term in after:
        second.add(term)
    assert repr(second.value) == repr(whole.value)
