"""Slices take little memory, and what is thinned stays evenly spread."""

from __future__ import annotations

import pytest

from lightning_elche.timeline.causes import Slice
from lightning_elche.timeline.packed import PackedSlices, Thinned

SLICES = [
    Slice(0.0, 4.0, {"startup": 4.0}),
    Slice(4.0, 10.0, {"compute": 5.0, "input": 1.0}),
    Slice(10.0, 12.0, {"average_wait": 2.0}),
]


@pytest.fixture
def packed() -> PackedSlices:
    """Three slices."""
    packed = PackedSlices()
    for piece in SLICES:
        packed.append(piece)
    return packed


def test_slices_come_out_as_they_went_in(packed: PackedSlices) -> None:
    """All of them, the last one, and a part."""
    assert (list(packed), len(packed)) == (SLICES, 3)
    assert (packed[-1], packed[:2]) == (SLICES[-1], SLICES[:2])


@pytest.mark.parametrize(
    ("low", "high", "found"),
    [(0.0, 12.0, [0, 1, 2]), (4.0, 10.0, [1]), (3.9, 4.1, [0, 1]), (12.0, 20.0, []), (9, 9, [1])],
)
def test_slices_between_two_moments_are_those_that_reach_in(
    packed: PackedSlices, low: float, high: float, found: list[int]
) -> None:
    """One that ends where the stretch begins does not."""
    assert list(packed.between(low, high)) == [SLICES[index] for index in found]


def test_totals_are_those_of_all_slices(packed: PackedSlices) -> None:
    """Of each cause, those that took no time among them."""
    totals = packed.totals()
    assert {cause: ns for cause, ns in totals.items() if ns} == {
        "compute": 5.0,
        "input": 1.0,
        "average_wait": 2.0,
        "startup": 4.0,
    }
    assert len(totals) == 12


@pytest.mark.parametrize(("count", "kept"), [(4, [0, 1, 2, 3]), (5, [0, 2, 4]), (9, [0, 4, 8])])
def test_thinned_keeps_every_nth(count: int, kept: list[int]) -> None:
    """With a limit of four: all, every second one, every fourth."""
    thinned = Thinned[int](4)
    for number in range(count):
        thinned.append(number)
    assert thinned.kept == kept
