"""Runs that must be over by a moment, simulated to the end."""

from __future__ import annotations

import random

import pytest

from lightning_elche.coordination.schedule.deadline import (
    Deadline,
    checkpoint_reserve_s,
    find_deadline,
    parse_deadline,
)
from lightning_elche.coordination.schedule.measured import Measured
from lightning_elche.coordination.schedule.schedule import ScheduleConfig


def measured(*seconds: float) -> Measured:
    own = Measured()
    for one in seconds:
        own.add(one)
    return own


def spare_s(seed: int) -> tuple[float, float]:
    """Seconds between the end of a run and its deadline, and how many there may be at most."""
    draw = random.Random(seed)
    checkpoint_s, window_s = draw.uniform(0.1, 60.0), draw.uniform(0.1, 60.0)
    deadline = Deadline(end=draw.uniform(10.0, 100.0) * (checkpoint_s + window_s), reason="")
    checkpoints, windows, now = measured(checkpoint_s), Measured(), 0.0
    while True:
        began, lasts = now, window_s * draw.uniform(0.8, 1.2)
        now += lasts
        due = deadline.due_at(checkpoints=checkpoints, windows=windows, under_way_s=lasts)
        if due <= now:  # heard during the window, heeded at its end
            spare = deadline.end - (now + checkpoint_s * draw.uniform(0.8, 1.2))
            return spare, 1.5 * (checkpoint_s + 1.2 * window_s) + 5.0
        windows.add(now - began)


@pytest.mark.parametrize("seed", range(200))
def test_run_ends_before_its_deadline_but_not_long_before(seed: int) -> None:
    """At most one and a half checkpoints and windows and five seconds, with jitter of a fifth."""
    spare, limit = spare_s(seed)
    assert 0.0 <= spare <= limit


def test_first_windows_count_twice() -> None:
    """With fewer than three, twice the longest, that under way included."""
    deadline = Deadline(end=1000.0, reason="", margin_s=5.0)
    known = {"checkpoints": measured(10.0), "windows": measured(4.0, 6.0)}
    assert deadline.due_at(**known) == 1000.0 - 1.5 * (10.0 + 12.0) - 5.0
    assert deadline.due_at(**known, under_way_s=8.0) == 1000.0 - 1.5 * (10.0 + 16.0) - 5.0


def test_third_window_brings_the_quantile() -> None:
    """From then on the longest no longer counts twice."""
    deadline = Deadline(end=1000.0, reason="", margin_s=0.0)
    windows = measured(*[2.0] * 99, 50.0)
    due = deadline.due_at(checkpoints=measured(10.0), windows=windows, under_way_s=70.0)
    assert due == 1000.0 - 1.5 * 12.0


@pytest.mark.parametrize(("num_bytes", "seconds"), [(0, 2.0), (10**9, 5.0)])
def test_checkpoint_that_was_never_timed_takes_what_its_size_says(
    num_bytes: int, seconds: float
) -> None:
    """200 MB a second, and two seconds at least."""
    assert checkpoint_reserve_s(Measured(), num_bytes) == seconds


def test_end_of_a_slurm_job_is_a_deadline() -> None:
    """If there is a job; its number is told."""
    deadline = find_deadline("slurm", {"SLURM_JOB_END_TIME": "1767225600", "SLURM_JOB_ID": "7"})
    assert deadline == Deadline(end=1767225600.0, reason="the end of SLURM job 7", margin_s=5.0)
    assert find_deadline("slurm", {}) is None
    assert find_deadline(None, {"SLURM_JOB_END_TIME": "1767225600"}) is None


@pytest.mark.parametrize(
    "text", ["2026-01-01T00:00:00Z", "2026-01-01T01:00:00+01:00", "2025-12-31 18:30-05:30"]
)
def test_deadline_is_read_with_its_zone(text: str) -> None:
    """All of these are the same moment."""
    assert parse_deadline(text) == 1767225600.0


@pytest.mark.parametrize(
    ("text", "reason"), [("2026-01-01T00:00:00", "no time zone"), ("noon", "Invalid"), (7, "no t")]
)
def test_deadline_that_is_none_is_refused(text: str, reason: str) -> None:
    """The message shows what was given, and why it is none."""
    with pytest.raises(ValueError, match=f"`deadline` must be 'slurm'.*got {text!r} .{reason}"):
        ScheduleConfig(deadline=text)


def test_end_time_of_slurm_that_is_no_number_is_refused() -> None:
    """The message names the variable."""
    with pytest.raises(ValueError, match=r"`SLURM_JOB_END_TIME` must be .*got 'soon'"):
        find_deadline("slurm", {"SLURM_JOB_END_TIME": "soon"})


def test_quantiles_are_of_the_latest_durations() -> None:
    """The 200 latest; none are 0."""
    assert Measured().p95 == 0.0
    own = measured(*[1000.0] * 50, *[float(second) for second in range(1, 201)])
    assert (own.count, own.p50, own.p95, own.longest) == (250, 100.0, 190.0, 200.0)
