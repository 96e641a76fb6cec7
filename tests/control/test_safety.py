"""The safety level rises row by row, and falls only where it may."""

from __future__ import annotations

import random

from lightning_elche.control.safety import SafetyLadder, SafetyLevel


def ladder() -> SafetyLadder:
    return SafetyLadder(max_failed_epochs=2)


def test_first_incident_is_a_notice() -> None:
    """From NORMAL."""
    change = ladder().incident(recent=1)
    assert change is not None
    assert (change.previous.name, change.level.name) == ("NORMAL", "NOTICE")


def test_second_incident_that_is_not_forgotten_is_elevated() -> None:
    """A second one after the first was forgotten is not."""
    own = ladder()
    own.incident(recent=1)
    assert own.incident(recent=1) is None
    change = own.incident(recent=2)
    assert change is not None
    assert change.level is SafetyLevel.ELEVATED


def test_epoch_with_an_incident_is_elevated() -> None:
    """Though it was the only one."""
    own = ladder()
    own.incident(recent=1)
    own.end_epoch()
    assert own.level is SafetyLevel.ELEVATED


def test_signals_that_do_not_arrive_are_conservative() -> None:
    """So is the mode, which is normal below."""
    own = ladder()
    own.incident(recent=2)
    before = own.mode
    own.cannot_publish("nobody listens")
    assert (before, own.mode, int(own.level)) == ("normal", "conservative", 3)


def test_level_never_falls_within_an_epoch() -> None:
    """Whatever happens, and each change is told once."""
    draw = random.Random(1)
    own, level = ladder(), SafetyLevel.NORMAL
    for _ in range(200):
        happens = [
            lambda: own.incident(recent=draw.choice((1, 2))),
            lambda: own.cannot_publish("busy"),
        ]
        change = draw.choice(happens)()
        assert own.level >= level
        assert (change is None) == (own.level == level)
        level = own.level


def test_epoch_without_an_incident_brings_normal_back() -> None:
    """Even from CONSERVATIVE."""
    own = ladder()
    own.cannot_publish("busy")
    own.end_epoch()
    assert own.level is SafetyLevel.NORMAL


def test_halt_outlasts_an_epoch() -> None:
    """Only `reset` takes it back."""
    own = ladder()
    own.halt("nothing to restore")
    assert own.end_epoch() is None
    change = own.reset()
    assert change is not None
    assert (change.previous.name, own.level.name) == ("HALT", "NORMAL")


def test_failed_epochs_in_a_row_are_too_many() -> None:
    """An epoch without an incident begins a new row."""
    own, seen = ladder(), []
    for had_incident in (True, False, True, True):
        own.had_incident = had_incident
        own.end_epoch()
        seen.append(own.has_failed_too_often)
    assert seen == [False, False, False, True]


def test_state_continues_the_history() -> None:
    """The incident of the present epoch included."""
    first, second = ladder(), ladder()
    first.incident(recent=2)
    second.load_state_dict(first.state_dict())
    second.end_epoch()
    assert (second.level.name, second.failed_epochs) == ("ELEVATED", 1)


def test_ladder_shows_where_it_stands() -> None:
    """For logs and debuggers."""
    ladder = SafetyLadder(max_failed_epochs=3)
    ladder.incident(recent=1)
    assert repr(ladder) == "SafetyLadder(level=NOTICE, failed_epochs=0)"


def test_checkpoint_that_was_restored_calls_for_caution() -> None:
    """From now on no further risks are taken."""
    ladder = SafetyLadder(max_failed_epochs=3)
    change = ladder.used_disk()
    assert change is not None
    assert (change.level, change.cause) == (SafetyLevel.CONSERVATIVE, "a checkpoint was restored")
    assert ladder.mode == "conservative"


def test_checkpoint_that_comes_too_late_calls_for_caution() -> None:
    """The run goes on with what may be damaged."""
    ladder = SafetyLadder(max_failed_epochs=3)
    change = ladder.missed_deadline()
    assert change is not None
    assert change.cause == "no checkpoint could be read in time"
    assert ladder.mode == "conservative"
