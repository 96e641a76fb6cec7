"""Tests of the ratios and the table of the benchmark."""

from __future__ import annotations

import pytest
from report import DDP, ELCHE, render, rows_of, summarise

SPEEDS = {
    "solo fast": 800.0,
    "solo slow": 200.0,
    "side by side": 980.0,
    "raw fast": 900.0,
    "raw slow": 200.0,
    DDP: 400.0,
    ELCHE: 960.0,
}


def test_ratios_are_over_the_sum_over_ddp_and_over_fast_alone() -> None:
    """One repeat: the ratios follow from its speeds."""
    row = summarise([SPEEDS])[ELCHE]
    assert row["of_the_sum_ratio"] == 0.96
    assert row["over_ddp_ratio"] == 2.4
    assert row["over_fast_alone_ratio"] == 1.2


def test_what_the_cores_take_from_each_other_is_told_apart() -> None:
    """The share of what both do at once without any exchange is the strategy's own doing."""
    assert summarise([SPEEDS])[ELCHE]["of_side_by_side_ratio"] == pytest.approx(960.0 / 980.0)


def test_the_raw_row_is_a_sum() -> None:
    """Both ranks alone in raw PyTorch, beside the sum under the Trainer."""
    assert summarise([SPEEDS])["raw"]["of_the_sum_ratio"] == 1.1


def test_ratios_are_taken_within_a_repeat() -> None:
    """A machine that is half as fast in one repeat does not move the ratios."""
    halved = {name: speed / 2.0 for name, speed in SPEEDS.items()}
    row = summarise([SPEEDS, halved, halved])[ELCHE]
    assert (row["samples_per_s"], row["of_the_sum_ratio"]) == (480.0, 0.96)


def test_the_range_shows_the_extremes_of_the_repeats() -> None:
    """How noisy the machine was."""
    repeats = [SPEEDS | {ELCHE: speed} for speed in (900.0, 950.0, 970.0)]
    row = summarise(repeats)[ELCHE]
    assert (row["of_the_sum_min"], row["of_the_sum_ratio"]) == (0.9, 0.95)
    assert row["of_the_sum_max"] == 0.97


def test_rows_that_were_not_measured_are_left_out() -> None:
    """Only the solo speeds are always there."""
    assert rows_of({"solo fast": 1.0, "solo slow": 1.0, ELCHE: 1.0}) == [
        "solo fast",
        "solo slow",
        ELCHE,
    ]


def test_the_table_shows_every_row_aligned() -> None:
    """Seven lines of equal length, with the ratios."""
    lines = render(summarise([SPEEDS])).splitlines()
    assert len({len(line) for line in lines}) == 1
    assert "96.0%" in lines[5]
    assert "2.40" in lines[5]


def test_the_table_without_ddp_has_no_ratio_to_it() -> None:
    """A dash, not a number."""
    speeds = {name: speed for name, speed in SPEEDS.items() if name != DDP}
    assert render(summarise([speeds])).splitlines()[1].split()[-2] == "-"


def test_a_row_of_equal_ranks_is_half_of_the_sum() -> None:
    """At 1:1 the fast rank alone is half."""
    speeds = {"solo fast": 500.0, "solo slow": 500.0, "side by side": 990.0}
    assert summarise([speeds])["solo fast"]["of_the_sum_ratio"] == pytest.approx(0.5)


def test_rows_in_a_plain_loop_are_marked_and_the_mark_is_explained() -> None:
    """They do without the Trainer that the sum includes."""
    lines = render(summarise([SPEEDS | {"torchft": 500.0}])).splitlines()
    assert "torchft LocalSGD *" in lines[5]
    assert lines[-1].startswith("* a plain PyTorch loop")
