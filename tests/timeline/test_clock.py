"""Ranks on machines of their own are put on one clock."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_elche.timeline.aligned import load
from lightning_elche.timeline.clock import offset_from_ends, offset_from_wall
from tests.timeline.recorded import MS, S, record_run


def ends_of(
    times: list[float], *, offset_ns: float = 0.0, ppm: float = 0.0, late: random.Random
) -> dict[int, int]:
    """When averages end on a clock; a rank notices a tenth of a millisecond late, at times 30."""
    noticed = (
        t + late.choice((0.0, 0.0, 0.0, 30.0)) * MS + late.random() * 0.1 * MS for t in times
    )
    return {index: int(offset_ns + t * (1.0 + ppm / 1e6)) for index, t in enumerate(noticed)}


@settings(max_examples=25, deadline=None)
@given(
    offset_s=st.floats(-5.0, 5.0),
    ppm=st.floats(-50.0, 50.0),
    seed=st.integers(0, 1000),
    seconds=st.sampled_from((60, 900, 3600)),
    period_s=st.sampled_from((0.5, 2.0)),
)
def test_drifting_clocks_agree_to_two_milliseconds(
    offset_s: float, ppm: float, seed: int, seconds: int, period_s: float
) -> None:
    """Five seconds off, 50 parts per million, for up to an hour, from the first to the last end."""
    late = random.Random(seed)
    times = [period_s * S * (index + late.random() / 2) for index in range(int(seconds / period_s))]
    first = ends_of(times, late=late)
    own = ends_of(times, offset_ns=offset_s * S, ppm=ppm, late=late)
    offset = offset_from_ends(own, first)
    assert offset is not None
    for t in (times[0], times[len(times) // 3], times[-1]):
        on_own = offset_s * S + t * (1.0 + ppm / 1e6)
        assert abs(offset.to_first(on_own) - t) <= 2 * MS


def test_two_common_averages_are_too_few() -> None:
    """Of what only one rank knows nothing follows."""
    assert offset_from_ends({0: 5, 1: 6, 7: 9}, {0: 15, 1: 16, 8: 9}) is None


def test_wall_clocks_serve_where_there_are_no_averages() -> None:
    """At the same wall time the clocks show 100 and 40."""
    offset = offset_from_wall((100, 1000), (40, 1000))
    assert (offset.to_first(100.0), offset.source) == (40.0, "wall")


@pytest.mark.parametrize(
    ("seconds", "boot", "source"), [(6, "b1", "same"), (6, "", "averages"), (2, "", "wall")]
)
def test_way_of_aligning_is_chosen_by_what_is_known(
    tmp_path: Path, seconds: int, boot: str, source: str
) -> None:
    """One machine has one clock; else averages decide, and wall clocks without them."""
    timeline = load(record_run(tmp_path, seconds=seconds, boot=boot))
    assert timeline.ranks[1].offset.source == source
    assert any("wall clock" in note for note in timeline.notes) == (source == "wall")
