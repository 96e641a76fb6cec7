"""Durations that are remembered, and what follows from them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lightning_elche.coordination.registry.database import Database
from lightning_elche.coordination.registry.durations_table import DurationTable
from lightning_elche.coordination.schedule.durations import (
    Duration,
    DurationEstimate,
    DurationFile,
    DurationModel,
    DurationStore,
    eta,
)
from lightning_elche.coordination.schedule.schedule import ScheduleConfig

NOW, DAY_S = 1_800_000_000.0, 86_400.0


def duration(
    seconds: float,
    *,
    fingerprint: str = "a",
    host: str = "here",
    days: float = 1.0,
    **options: bool,
) -> Duration:
    return Duration(
        kind="train",
        fingerprint=fingerprint,
        host=host,
        seconds=seconds,
        at=NOW - days * DAY_S,
        **options,
    )


@pytest.fixture(params=["file", "table"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> DurationStore:
    if request.param == "file":
        return DurationFile(tmp_path / "run" / "durations.jsonl")
    return DurationTable(Database(tmp_path / "registry.db"))


def model_of(store: DurationStore, *durations: Duration) -> DurationModel:
    for one in durations:
        store.add_duration(one)
    return DurationModel(store, now=lambda: NOW)


HERE = [duration(seconds) for seconds in (10.0, 20.0, 30.0)]
THERE = [duration(seconds, host="there") for seconds in (100.0, 200.0, 300.0)]
OTHERS = [duration(seconds, fingerprint="b", days=20.0) for seconds in (1e3, 2e3, 3e3)]


@pytest.mark.parametrize(
    ("known", "median_s", "source"),
    [
        ([*HERE, *THERE, *OTHERS], 20.0, "host"),
        ([*HERE[:2], *THERE, *OTHERS], 100.0, "fingerprint"),
        ([*HERE[:2], *OTHERS], 1000.0, "kind"),
        ([*HERE[:2]], 14_400.0, "default"),
        ([duration(5.0, days=31.0)] * 3, 14_400.0, "default"),
        ([duration(5.0, days=8.0)] * 3, 5.0, "kind"),
        ([duration(5.0, is_success=False)] * 3, 14_400.0, "default"),
        ([], 14_400.0, "default"),
    ],
)
def test_estimate_is_of_the_most_similar_three(
    store: DurationStore, known: list[Duration], median_s: float, source: str
) -> None:
    """This host, then any host, then any fingerprint, then a default; failures do not count."""
    estimate = model_of(store, *known).estimate("train", fingerprint="a", host="here")
    assert (estimate.median_s, estimate.source) == (median_s, source)


def test_estimate_tells_what_nine_of_ten_do_not_exceed(store: DurationStore) -> None:
    """Interpolated between them."""
    known = [duration(float(seconds)) for seconds in range(10, 121, 10)]
    assert model_of(store, *known).estimate("train", fingerprint="a", host="here").p90_s == 109.0


def test_kind_of_which_nothing_is_known_is_refused(tmp_path: Path) -> None:
    """The message says where to name it."""
    model = DurationModel(DurationFile(tmp_path / "none"), defaults_s={"bake": 5.0})
    assert model.estimate("bake").median_s == 5.0
    with pytest.raises(ValueError, match=r"`kind` must be one of .*got 'brew'. Add it to `def"):
        model.estimate("brew")


def test_lines_that_are_no_durations_are_passed_over(tmp_path: Path) -> None:
    """Such as one that was cut off."""
    path = tmp_path / "durations.jsonl"
    file = DurationFile(path)
    file.add_duration(duration(7.0))
    strangers = ["[]", "{}", '{"kind": "train"', json.dumps({**vars(HERE[0]), "seconds": "long"})]
    path.write_text(path.read_text() + "\n".join(strangers) + "\n")
    file.add_duration(duration(8.0))
    assert [one.seconds for one in file.durations("train", since=0.0)] == [7.0, 8.0]


HOUR = DurationEstimate(median_s=3600.0, p90_s=7200.0, source="host", count=3)


@pytest.mark.parametrize(
    ("elapsed_s", "progress", "median_s", "p90_s"),
    [
        (0.0, 0.0, 3600.0, 7200.0),
        (600.0, 0.0, 3000.0, 6600.0),
        (500.0, 0.05, 0.5 * 9500.0 + 0.5 * 3100.0, 0.5 * 19_000.0 + 0.5 * 6700.0),
        (1000.0, 0.1, 9000.0, 18_000.0),
        (1000.0, 0.5, 1000.0, 2000.0),
        (9000.0, 0.0, 0.0, 0.0),
        (5000.0, 1.0, 0.0, 0.0),
    ],
)
def test_speed_of_the_run_counts_more_the_further_it_is(
    elapsed_s: float, progress: float, median_s: float, p90_s: float
) -> None:
    """Alone from a tenth on."""
    left = eta(elapsed_s=elapsed_s, progress=progress, estimate=HOUR)
    assert (left.median_s, left.p90_s) == (pytest.approx(median_s), pytest.approx(p90_s))


@pytest.mark.parametrize(
    ("option", "value", "rule"),
    [
        ("margin_s", -1.0, ">= 0"),
        ("peak_policy", "hope", "one of"),
        ("defaults_s", {"train": 0.0}, "hold numbers > 0"),
    ],
)
def test_schedule_refuses_options_out_of_range(option: str, value: object, rule: str) -> None:
    """The message names the option and the rule."""
    with pytest.raises(ValueError, match=f"`{option}` must (be )?{rule}"):
        ScheduleConfig(**{option: value})
