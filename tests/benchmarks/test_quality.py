"""Tests of the quality benchmark: its rows, its ratios, and one short run."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import unequal
from quality import bench_for, headline, parse_arguments, rows_of
from quality_report import (
    Event,
    Point,
    Training,
    loss_ratio,
    render,
    render_events,
    seconds_to,
    spread,
    summarise,
    time_ratio,
)

from tests.benchmarks.marks import needs_two_cores
from tests.examples.script import run_script


def training(*losses: float, second: float = 1.0) -> Training:
    """Return a training that validates every `second`."""
    points = [
        Point(samples=100.0 * number, seconds=second * number, loss=loss)
        for number, loss in enumerate(losses, start=1)
    ]
    return Training(points=points, events=[])


FALLING = training(4.0, 3.0, 2.0)
SEED = {"ddp": training(4.0, 3.0, 2.0, second=10.0), "elche": training(3.0, 1.9, second=4.0)}


@needs_two_cores
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--quota", "2"], "argument --quota: must be a part between 0.01 and 1, got 2"),
        (["--seeds", "0"], "argument --seeds: must be at least 1, got 0"),
        (["--guard", "maybe"], "argument --guard: invalid choice"),
        (["--outer", "1,2"], "argument --outer: must be none or LR,MOMENTUM, got 1,2"),
        (["--batches", "15"], "argument --batches: must be a multiple of twice --checks (10)"),
        (["--png", "/nowhere/at/all.png"], "argument --png: must be in an existing folder"),
    ],
)
def test_wrong_arguments_are_named(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """The message names the argument and what it should be."""
    with pytest.raises(SystemExit, match="2"):
        parse_arguments(arguments)
    assert message in capsys.readouterr().err


@needs_two_cores
def test_every_combination_of_options_is_a_row() -> None:
    """DDP comes first, then the fast rank, then ElCheStrategy in all its forms."""
    options = parse_arguments(["--optimizer-state", "average", "keep", "--guard", "on", "off"])
    assert list(rows_of(options)) == [
        "ddp",
        "fast rank alone",
        "elche",
        "elche, guard off",
        "elche, keep",
        "elche, keep, guard off",
    ]


@needs_two_cores
def test_a_row_with_an_outer_optimizer_is_named_after_it() -> None:
    """After its learning rate and momentum; without one goes without saying."""
    rows = rows_of(parse_arguments(["--modes", "elche", "--outer", "none", "1,0.3"]))
    assert list(rows) == ["ddp", "elche", "elche, outer 1,0.3"]
    assert rows["elche, outer 1,0.3"][-2:] == ("--outer", "1,0.3")


@needs_two_cores
def test_several_anchors_are_named() -> None:
    """One anchor, the default or another, goes without saying."""
    rows = rows_of(parse_arguments(["--modes", "elche", "--anchor", "3", "10"]))
    assert list(rows) == ["ddp", "elche, anchor 3", "elche, anchor 10"]
    assert rows["elche, anchor 3"][-4:-2] == ("--anchor", "3")


@needs_two_cores
def test_ddp_is_always_trained() -> None:
    """It is what the others are compared with."""
    assert list(rows_of(parse_arguments(["--modes", "elche"]))) == ["ddp", "elche"]


@needs_two_cores
def test_without_groups_the_slow_rank_sleeps_and_the_headline_says_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A quarter of the speed is a factor of four."""
    monkeypatch.setattr(unequal, "can_limit", lambda: False)
    options = parse_arguments([])
    machine: dict[str, str | int] = dict.fromkeys(("cpu", "cores", "load_1min", "torch"), "x")
    assert "by sleeping" in headline(options, machine | {"lightning": "x"})
    with bench_for(options) as bench:
        assert bench.slow == ("--factor", "4.0")


@pytest.mark.parametrize(
    ("loss", "seconds"), [(4.0, 1.0), (5.0, 1.0), (3.0, 2.0), (2.25, 2.75), (1.9, math.inf)]
)
def test_time_to_a_loss_is_read_off_the_curve(loss: float, seconds: float) -> None:
    """Between two validations it lies on the straight line; what is not reached takes for ever."""
    assert seconds_to(loss, FALLING["points"]) == seconds


def test_time_to_a_loss_is_that_of_the_first_crossing() -> None:
    """A curve that rises again has been there."""
    assert seconds_to(3.0, training(4.0, 2.0, 5.0, 1.0)["points"]) == 1.5


def test_ratios_are_to_ddp() -> None:
    """The loss at the end, and the time until DDP's loss or almost its loss is reached."""
    assert loss_ratio("elche", SEED) == 0.95
    assert time_ratio("ddp", SEED) == 1.0
    assert time_ratio("elche", SEED) == pytest.approx((4.0 + 4.0 / 1.1) / 30.0)
    near = (4.0 + 4.0 * 0.98 / 1.1) / 29.8
    assert time_ratio("elche", SEED, tolerance=1.01) == pytest.approx(near)


def test_summary_holds_median_lowest_and_highest_of_the_seeds() -> None:
    """Ratios are taken within a seed."""
    seeds = [{"ddp": training(2.0), "elche": training(loss)} for loss in (2.2, 1.8, 2.0)]
    summary = summarise(seeds)
    assert summary["elche"]["loss_ratio"] == (1.0, 0.9, 1.1)
    assert summary["ddp"]["loss_ratio"] == (1.0, 1.0, 1.0)
    assert summary["elche"]["time_ratio"] == (1.0, 1.0, None)


def test_what_is_never_reached_is_not_a_number() -> None:
    """JSON knows no infinity."""
    assert spread([math.inf, 1.0, math.inf]) == (None, 1.0, None)


def test_table_shows_every_row_aligned() -> None:
    """A loss that was not reached is "never"."""
    lines = render(summarise([SEED | {"worse": training(3.0, 2.5)}])).splitlines()
    assert len({len(line) for line in lines}) == 1
    assert "never (never - never)" in lines[3]
    assert "0.9500 (0.9500 - 0.9500)" in lines[2]


def test_events_show_the_guard_and_the_anchor() -> None:
    """How often it acted, the anchor over time, and how far replicas drifted at first and last."""
    common = {"samples": 1.0, "seconds": 1.0}
    events = [
        Event(**common, anchor=10.0, action="STABLE"),
        Event(**common, anchor=10.0, action="HOLD", previous_divergence=0.2),
        Event(**common, anchor=5.0, action="TIGHTEN", previous_divergence=0.1),
        Event(**common, anchor=3.0, action="TIGHTEN", previous_divergence=0.15),
    ]
    assert render_events(events) == (
        "4 events, HOLD 1, TIGHTEN 2; anchor 10 10 5 3; divergence 0.200 (first) 0.200 (last)"
    )


@pytest.mark.whole
@pytest.mark.timeout(400)
@needs_two_cores
def test_a_short_run_ends_with_a_table_a_picture_and_all_curves(tmp_path: Path) -> None:
    """DDP, the fast rank and ElCheStrategy see the same samples."""
    pytest.importorskip("matplotlib")
    short = ["--seeds", "1", "--epochs", "1", "--batches", "40", "--checks", "2"]
    files = ["--json", "all.json", "--png", "all.png"]
    finished = run_script("benchmarks/quality.py", *short, *files, folder=tmp_path)
    assert (finished.code, finished.stderr) == (0, "")
    assert (tmp_path / "all.png").read_bytes().startswith(b"\x89PNG")
    trainings = json.loads((tmp_path / "all.json").read_text())["seeds"][0]
    assert list(trainings) == ["ddp", "fast rank alone", "elche"]
    assert {run["points"][-1]["samples"] for run in trainings.values()} == {320.0}
    assert trainings["elche"]["events"]
