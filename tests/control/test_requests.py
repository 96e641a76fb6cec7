"""What a rank asks of all, and how a run that ends says why."""

from __future__ import annotations

import pytest

from lightning_elche.control.requests import Requests, StopCause, first_cause


@pytest.mark.parametrize(
    ("cause", "code"),
    [
        (StopCause.NONE, 0),
        (StopCause.SIGTERM, 143),
        (StopCause.SIGINT, 130),
        (StopCause.FAILURE, 1),
    ],
)
def test_exit_code_tells_the_cause(cause: StopCause, code: int) -> None:
    """As a shell reports a signal; an error is 1."""
    assert cause.exit_code == code


def test_smallest_cause_counts() -> None:
    """So that all ranks leave for the same reason; none is none."""
    assert first_cause([StopCause.NONE, StopCause.FAILURE, StopCause.SIGINT]) is StopCause.SIGINT
    assert first_cause([StopCause.NONE]) is first_cause([]) is StopCause.NONE


def test_nothing_is_asked_by_default() -> None:
    """A rank takes part in the average and goes on."""
    assert Requests() == Requests(should_stop=False, stop=StopCause.NONE, alignment=False)
    assert not Requests().abstains


@pytest.mark.parametrize(
    ("requests", "is_urgent"),
    [
        (Requests(stop=StopCause.HALT), True),
        (Requests(pause=True), True),
        (Requests(should_stop=True, alignment=True, checkpoint=True), False),
    ],
)
def test_stop_and_pause_make_all_ranks_meet_at_once(requests: Requests, is_urgent: bool) -> None:
    """All else is heard at the next event that comes anyway."""
    assert requests.is_urgent is is_urgent
