"""Steps become one record of a window."""

from __future__ import annotations

from lightning_elche.timeline.fold import StepFold


def fold_of(durations: list[int], *, detail_steps: int = 0) -> StepFold:
    fold, now = StepFold(detail_steps=detail_steps), 0
    for duration in durations:
        fold.begin(now)
        fold.end(now + duration // 2)  # the forward pass, say
        fold.end(now + duration)
        now += duration + 100
    return fold


def test_window_holds_sum_and_spread_of_its_steps() -> None:
    """The last `end` of a step counts."""
    window = fold_of([10, 40, 20, 30]).take()
    assert window == {
        "batches": 4,
        "compute_ns": 100,
        "input_ns": 0,
        "step_ns": {"min": 10, "median": 30, "p95": 40, "max": 40},
    }


def test_next_window_begins_empty() -> None:
    """Without steps there is no spread."""
    fold = fold_of([10])
    fold.take()
    assert fold.take() == {"batches": 0, "compute_ns": 0, "input_ns": 0}


def test_waiting_for_data_within_a_step_is_no_computing() -> None:
    """A model that fetches its batches itself waits for them in its step."""
    fold = StepFold()
    fold.begin(0)
    fold.input_ns += 30
    fold.end(100)
    fold.input_ns += 5  # before the next step
    window = fold.take()
    assert (window["compute_ns"], window["input_ns"]) == (70, 35)


def test_what_has_a_record_of_its_own_is_no_computing() -> None:
    """Such as compiling, of which only that within the step counts."""
    fold = StepFold()
    fold.begin(0)
    fold.apart_ns += 60
    fold.end(100)
    fold.apart_ns += 500  # a checkpoint behind the step
    assert fold.take()["compute_ns"] == 40


def test_step_that_raised_counts_until_its_last_end() -> None:
    """It has begun, and the next one begins."""
    fold = StepFold()
    fold.begin(0)
    fold.begin(50)
    fold.end(60)
    window = fold.take()
    assert (window["batches"], window["compute_ns"]) == (2, 10)


def test_first_steps_of_each_window_are_kept_on_request() -> None:
    """Begin and duration of each."""
    assert fold_of([10, 40, 20], detail_steps=2).take()["steps"] == [(0, 10), (110, 40)]
