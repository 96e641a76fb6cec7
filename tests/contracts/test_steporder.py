"""Tests of which step may come next in a log."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightning_elche.contracts.gates.order import StepOrder

runs = st.tuples(st.integers(0, 30), st.integers(1, 12), st.sampled_from([1, 2, 3, 5, 10]))


def _after(*steps: int, first: int = 0, period: int = 1) -> StepOrder:
    order = StepOrder(first, period=period)
    for step in steps:
        order.take(step)
    return order


@pytest.mark.parametrize(("step", "is_fine"), [(4, False), (5, True), (6, False)])
def test_only_the_next_step_may_come(step: int, is_fine: bool) -> None:
    """Without a sampling period exactly the next step may come."""
    assert _after(*range(5)).accepts(step) is is_fine


@pytest.mark.parametrize(("step", "is_fine"), [(10, False), (11, True), (20, True), (21, False)])
def test_no_sampled_step_may_be_left_out(step: int, is_fine: bool) -> None:
    """With a sampling period any step up to its next multiple may come."""
    assert _after(0, 10, period=10).accepts(step) is is_fine


@pytest.mark.parametrize("period", [1, 10])
def test_log_begins_with_step_zero(period: int) -> None:
    """The first step is 0, whatever the sampling period."""
    order = StepOrder(period=period)
    assert (order.accepts(0), order.accepts(1)) == (True, False)


def test_log_begins_with_the_step_asked_for() -> None:
    """A log can be judged from a later step on."""
    order = StepOrder(7)
    assert [order.accepts(step) for step in (0, 6, 7, 8)] == [False, False, True, False]


def test_problem_is_told_by_step() -> None:
    """A gap is told by the step that is absent, a step back by itself."""
    order = _after(0, 1, 2)
    assert order.problem(3) is None
    assert order.problem(7) == (3, "is absent, the next one is 7")
    assert order.problem(1) == (1, "comes after step 2")


def test_order_goes_on_after_a_gap_but_not_after_a_step_back() -> None:
    """After a gap the next step is the one behind it; a step back changes nothing."""
    assert _after(0, 1, 7).due == 8
    assert _after(0, 1, 7, 3).due == 8


def test_unreadable_line_may_have_been_the_step_due() -> None:
    """After a line that nobody can read its step or the one after it may come, but not a third."""
    order = _after(0, 1)
    order.take_unreadable()
    assert [order.accepts(step) for step in (1, 2, 3, 4)] == [False, True, True, False]
    order.take(3)
    assert order.accepts(5) is False


@given(runs)
def test_even_steps_are_accepted_at_once_if_they_are_one_by_one(
    run: tuple[int, int, int],
) -> None:
    """Evenly spaced steps that are accepted at once are accepted one by one."""
    first, count, stride = run
    steps = list(range(first, first + count * stride, stride))
    for period in (1, 2, 5, 10):
        at_once, one_by_one = StepOrder(period=period), StepOrder(period=period)
        is_fine = True
        for step in steps:
            is_fine = is_fine and one_by_one.accepts(step)
            one_by_one.take(step)
        assert not at_once.accepts_all(steps) or is_fine
        if stride in (1, period):
            assert at_once.accepts_all(steps) == is_fine


@pytest.mark.parametrize(
    "steps", [[1, 2], [0, 2], [0, 1, 1], [0, 1, 3], [0, 0], [1, 0], [0, 1, 2, 4]]
)
def test_uneven_steps_are_not_accepted_at_once(steps: list[int]) -> None:
    """Steps with a gap, a repetition or a wrong begin are not accepted at once."""
    assert not StepOrder().accepts_all(steps)


def test_steps_beside_the_multiples_of_the_period_are_not_accepted_at_once() -> None:
    """Steps 5 and 15 leave out step 10, although they are one period apart."""
    assert not _after(0, period=10).accepts_all([5, 15])
    assert _after(0, period=10).accepts_all([10, 20])


def test_steps_are_not_accepted_at_once_after_an_unreadable_line() -> None:
    """After a line that nobody can read steps are looked at one by one."""
    order = StepOrder()
    order.take_unreadable()
    assert not order.accepts_all([0, 1])


def test_steps_are_not_accepted_at_once_beyond_63_bits() -> None:
    """The last step that is one is 2^63 - 1."""
    order = StepOrder(2**63 - 2)
    assert order.accepts_all([2**63 - 2, 2**63 - 1])
    assert not order.accepts_all([2**63 - 2, 2**63 - 1, 2**63])


@pytest.mark.parametrize(
    ("steps", "expected"),
    [([0, 10, 20], [0, 10, 20]), ([8, 9, 10, 11], [10]), ([3], []), ([20], [20]), ([1, 2], [])],
)
def test_sampled_steps_are_multiples_of_the_period(steps: list[int], expected: list[int]) -> None:
    """Of a dense log every so-manieth step is sampled, of a thinned one all are."""
    assert steps[StepOrder(period=10).sampled(steps)] == expected


def test_order_goes_on_from_its_state() -> None:
    """An order restored from JSON expects the same step."""
    order, other = _after(0, 1, 2), StepOrder()
    order.take_unreadable()
    other.load_state_dict(json.loads(json.dumps(order.state_dict())))
    assert [other.accepts(step) for step in range(6)] == [order.accepts(step) for step in range(6)]
