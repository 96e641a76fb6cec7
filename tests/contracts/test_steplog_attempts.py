"""Logs of runs that were resumed: for each step the highest attempt counts."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from lightning_elche.contracts.steplog import file as steplog_file
from lightning_elche.contracts.steplog import passes as steplog_reader
from lightning_elche.contracts.steplog.reading import SupersededSteps, fastest_decoders, read_steps
from tests.contracts.recorded_steps import RecordedSteps, line, record_steps

# Attempts as a run makes them: how many steps each one takes, and how far back the next begins.
RUNS = st.lists(st.tuples(st.integers(1, 8), st.integers(0, 8)), min_size=1, max_size=5)


def attempt(number: int | None, steps: range) -> bytes:
    """Return the lines of an attempt; without its number if that is `None`."""
    return b"".join(line(step, attempt="" if number is None else str(number)) for step in steps)


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("log") / "train.jsonl"


@pytest.mark.parametrize("numbers", [(0, 1), (None, None), (0, 7)])
def test_later_attempt_counts_where_steps_were_done_twice(
    log: Path, numbers: tuple[int | None, int | None]
) -> None:
    """A step back begins an attempt where records do not say theirs."""
    text = attempt(numbers[0], range(10)) + attempt(numbers[1], range(6, 14))
    sink, summary = record_steps(log, text)
    assert (sink.steps, summary.records, summary.attempts) == (list(range(14)), 14, 2)
    assert summary.superseded == (SupersededSteps(attempt=0, first_step=6, last_step=9, records=4),)


def test_superseded_steps_are_noted(log: Path) -> None:
    """A reader of the report learns that there were more."""
    _, summary = record_steps(log, attempt(0, range(10)) + attempt(1, range(6, 14)))
    assert [one.message for one in summary.findings] == [
        "4 records of attempt 0, steps 6 to 9, do not count: a later attempt began before them"
    ]


def test_steps_that_a_later_attempt_did_not_reach_do_not_count(log: Path) -> None:
    """They belong to weights that were given up when the run went back."""
    sink, summary = record_steps(log, attempt(0, range(10)) + attempt(1, range(6, 8)))
    assert (sink.steps, summary.superseded[0].records) == ([0, 1, 2, 3, 4, 5, 6, 7], 4)


def test_bad_record_that_was_taken_back_is_not_judged(log: Path) -> None:
    """Its step was done again."""
    text = attempt(0, range(3)) + line(3, train_loss="NaN", attempt="0") + attempt(1, range(3, 5))
    sink, _ = record_steps(log, text)
    assert [record["train_loss"] for record in sink.records] == [2.5] * 5


def test_run_that_was_resumed_where_it_ended_has_nothing_superseded(log: Path) -> None:
    """Every step was done once."""
    sink, summary = record_steps(log, attempt(0, range(5)) + attempt(1, range(5, 9)))
    assert (sink.steps, summary.attempts, summary.superseded) == (list(range(9)), 2, ())


def test_repeated_step_of_the_same_attempt_stays(log: Path) -> None:
    """Nothing was resumed: the sink has to refuse it."""
    sink, _ = record_steps(log, attempt(0, range(3)) + attempt(0, range(1, 3)))
    assert sink.steps == [0, 1, 2, 1, 2]


def test_repeated_step_without_attempts_is_no_step_back(log: Path) -> None:
    """A line that was written twice is not a resume."""
    sink, _ = record_steps(log, attempt(None, range(3)) + attempt(None, range(2, 5)))
    assert sink.steps == [0, 1, 2, 2, 3, 4]


def test_lines_in_the_wrong_order_stay_amiss(log: Path) -> None:
    """As many lines as steps: none was done twice unless another is absent."""
    text = b"".join(line(step) for step in (0, 1, 2, 1, 4))
    sink, _ = record_steps(log, text)
    assert sink.steps == [0, 1, 2, 1, 4]


def test_records_without_a_step_are_passed_on(log: Path) -> None:
    """The sink refuses them, whichever attempt they are of."""
    text = attempt(0, range(3)) + line("null", attempt="0") + attempt(1, range(1, 3))
    sink, _ = record_steps(log, text)
    assert sink.steps == [0, None, 1, 2]


def test_broken_lines_of_a_superseded_attempt_are_passed_on(log: Path) -> None:
    """Nobody knows which step they were."""
    sink, _ = record_steps(log, attempt(0, range(3)) + b"x\n" + attempt(1, range(1, 3)))
    assert (sink.steps, len(sink.broken_lines)) == ([0, 1, 2], 1)


def test_resumed_log_is_read_fast(log: Path) -> None:
    """Only lines around the resume come one by one."""
    sink, _ = record_steps(log, attempt(0, range(3000)) + attempt(1, range(1000, 4000)))
    assert (sink.steps, len(sink.places) < 300) == (list(range(4000)), True)


def test_hundred_attempts_are_noted_in_short(log: Path) -> None:
    """The first twenty are named."""
    text = b"".join(attempt(number, range(number, number + 2)) for number in range(100))
    _, summary = record_steps(log, text)
    assert (len(summary.superseded), len(summary.findings)) == (99, 21)
    assert summary.findings[-1].message == "nor do records of 79 more attempts"


@pytest.mark.parametrize(
    ("second", "steps"),
    [(range(0), [0, 1, 2]), (range(4, 6), [0, 1, 2, 4, 5]), (range(2, 4), [0, 1, 2, 3])],
    ids=["none", "late", "early"],
)
def test_attempt_takes_back_from_where_it_is_known_to_have_begun(
    log: Path, second: range, steps: list[int]
) -> None:
    """It may have logged nothing, or lost its first records; what it logged also tells."""
    log.write_bytes(attempt(0, range(10)) + attempt(1, second))
    sink = RecordedSteps()
    read_steps(log, sink, name="train.jsonl", resumed_at={1: 3})
    assert sink.steps == steps


@settings(max_examples=200)
@given(runs=RUNS, is_told=st.booleans(), is_fast=st.booleans())
def test_steps_that_count_are_those_of_an_unbroken_run(
    log: Path, runs: list[tuple[int, int]], is_told: bool, is_fast: bool
) -> None:
    """However often it was resumed, the sink sees the steps that led to the last one."""
    text, kept = b"", []
    for number, (steps, back) in enumerate(runs):
        start = max(len(kept) - back, 0)
        assume(is_told or number == 0 or start < len(kept) - 1)
        text += attempt(number if is_told else None, range(start, start + steps))
        kept = [*kept[:start], *((number, step) for step in range(start, start + steps))]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(steplog_file, "BLOCK_BYTES", 700)
        patch.setattr(steplog_reader, "FEW_BYTES", 300)
        sink, _ = record_steps(log, text, decoders=fastest_decoders() if is_fast else ())
    assert sink.steps == [step for _, step in kept]
    if is_told:
        assert [record["attempt"] for record in sink.records] == [number for number, _ in kept]
