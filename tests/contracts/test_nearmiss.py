"""Mistyped keys."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightning_elche.contracts.grammar.nearmiss import closest_key, edit_distance
from lightning_elche.contracts.grammar.vocabulary import GATE_KEYS, TOP_LEVEL_KEYS

KNOWN = {"gates", "convergence", "metadata"}


@pytest.mark.parametrize(
    ("key", "meant"),
    [
        ("convergense", "convergence"),
        ("convergenec", "convergence"),
        ("conevrgenec", None),  # four edits
        ("Convergence", "convergence"),
        ("CONVERGENCE-", "convergence"),
        ("meta-data", "metadata"),
        ("metadata_v2", None),  # three edits
        ("metadatas2", "metadata"),
        ("gate", None),  # too short a key to tell
        ("Gates", "gates"),
        ("", None),
    ],
)
def test_key_is_mistyped_within_two_edits(key: str, meant: str | None) -> None:
    """Two letters may differ, case and dashes do not count, and short keys must fit."""
    assert closest_key(key, known=KNOWN) == meant


@pytest.mark.parametrize(
    "key",
    [
        *("peer_contracts", "type_invariants", "codegen_dispatch", "performance", "tests"),
        *("acceptance_criteria", "provenance", "open_questions", "dependencies", "notes"),
    ],
)
def test_key_of_its_own_is_no_mistake(key: str) -> None:
    """Keys that other contracts use resemble none of ours."""
    assert closest_key(key, known=TOP_LEVEL_KEYS) is None


def test_known_keys_do_not_resemble_each_other_where_it_matters() -> None:
    """The nearest known key to a known one is itself."""
    assert all(closest_key(key, known=GATE_KEYS) == key for key in GATE_KEYS)


@given(one=st.text("abc", max_size=6), other=st.text("abc", max_size=6))
def test_distance_is_symmetric_and_zero_for_equal_texts(one: str, other: str) -> None:
    """The order of the texts does not matter, and only equal ones have no distance."""
    assert edit_distance(one, other) == edit_distance(other, one)
    assert (edit_distance(one, other) == 0) == (one == other)


@pytest.mark.parametrize(
    ("one", "other", "edits"), [("kitten", "sitting", 3), ("", "abc", 3), ("ab", "ba", 2)]
)
def test_distance_counts_edits(one: str, other: str, edits: int) -> None:
    """Inserted, deleted and replaced letters count one each."""
    assert edit_distance(one, other) == edits
