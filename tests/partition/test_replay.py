"""Recording and verifying fingerprints."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightning_elche.partition import errors
from lightning_elche.partition.replay import Replay, ReplayConfig, ReplayFingerprint


def at(step: int, value: int | None = None) -> ReplayFingerprint:
    """Return a fingerprint of a step."""
    return ReplayFingerprint(step, 100 + step if value is None else value)


EXPECTED = [at(2), at(4), at(7)]


def test_off_takes_in_nothing() -> None:
    """A replay that is off wants no fingerprints and keeps none."""
    replay = Replay()
    replay.report(at(1))
    assert (replay.is_on, replay.recorded) == (False, ())


def test_record_takes_in_all() -> None:
    """Recorded fingerprints are kept in order."""
    replay = Replay("record")
    replay.report(at(1))
    replay.report(at(3))
    assert replay.is_on
    assert replay.recorded == (at(1), at(3))


def test_verify_takes_in_what_is_expected() -> None:
    """Equal fingerprints are kept, and move on to the next expected one."""
    replay = Replay("verify", EXPECTED)
    for fingerprint in EXPECTED:
        replay.report(fingerprint)
    assert replay.recorded == tuple(EXPECTED)
    assert replay.remaining == 0
    replay.finish()


@pytest.mark.parametrize(
    ("taken", "fingerprint", "error"),
    [
        (1, at(4, 5), errors.ReplayDivergence(4, expected=104, actual=5)),
        (1, at(5), errors.ReplayStepMismatch(4, 5)),
        (1, at(5, 104), errors.ReplayStepMismatch(4, 5)),
        (0, at(4), errors.ReplayStepMismatch(2, 4)),  # expected, but not yet
        (3, at(7), errors.ReplayExhausted(7)),
    ],
)
def test_what_is_not_expected_changes_nothing(
    taken: int, fingerprint: ReplayFingerprint, error: errors.ReplayError
) -> None:
    """A missing entry, another step and another value are told apart, in this order."""
    replay = Replay("verify", EXPECTED)
    for expected in EXPECTED[:taken]:
        replay.report(expected)
    with pytest.raises(type(error)) as caught:
        replay.report(fingerprint)
    assert str(caught.value) == str(error)
    assert (replay.cursor, replay.recorded) == (taken, tuple(EXPECTED[:taken]))


def test_divergence_can_be_passed_over() -> None:
    """A divergence that is accepted is kept, and the next one is expected."""
    replay = Replay("verify", EXPECTED)
    replay.accept(at(2, 5))
    replay.report(at(4))
    assert replay.recorded == (at(2, 5), at(4))


@pytest.mark.parametrize(
    ("step", "cursor"), [(0, 0), (1, 0), (2, 1), (3, 1), (4, 2), (7, 3), (99, 3)]
)
def test_restore_goes_on_behind_the_step(step: int, cursor: int) -> None:
    """After a restore the first entry of a later step is expected, or none."""
    replay = Replay("verify", EXPECTED)
    replay.restore(step)
    assert replay.cursor == cursor


def test_restore_cuts_the_record() -> None:
    """What was recorded behind the restored step is recorded anew."""
    replay = Replay("record")
    for fingerprint in (*EXPECTED, at(9)):
        replay.report(fingerprint)
    replay.restore(4)
    replay.report(at(7))
    assert replay.recorded == (at(2), at(4), at(7))


@given(back=st.integers(0, 20), forth=st.integers(0, 20))
def test_run_that_goes_back_repeats_its_record(back: int, forth: int) -> None:
    """Wherever a run goes back to, repeating it verifies and records the same."""
    expected = [at(step) for step in range(1, 21)]
    replay = Replay("verify", expected)
    for fingerprint in expected[:forth]:
        replay.report(fingerprint)
    replay.restore(min(back, forth))
    for fingerprint in expected[min(back, forth) :]:
        replay.report(fingerprint)
    assert replay.recorded == tuple(expected)
    replay.finish()


def test_run_that_ends_early_is_incomplete() -> None:
    """Expected entries that are left are counted."""
    replay = Replay("verify", EXPECTED)
    replay.report(at(2))
    with pytest.raises(errors.ReplayIncomplete) as caught:
        replay.finish()
    assert caught.value.remaining == 2


def test_record_is_never_incomplete() -> None:
    """A run that only records may end anywhere."""
    Replay("record").finish()


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"mode": "on"}, "mode"),
        ({"scope": "all"}, "scope"),
        ({"on_divergence": "ignore"}, "on_divergence"),
        ({"on_env_mismatch": "quarantine"}, "on_env_mismatch"),
        ({"mode": "verify"}, "expected"),
        ({"mode": "record", "expected": "a.jsonl"}, "expected"),
    ],
)
def test_config_is_refused_with_the_name_of_a_bad_value(
    options: dict[str, Any], named: str
) -> None:
    """A value that is not one of the choices is named, and so is a record that is not used."""
    with pytest.raises(errors.InvalidConfig, match=f"`{named}` must be"):
        ReplayConfig(**options)


def test_mode_is_checked_without_config() -> None:
    """A replay has one of three modes."""
    with pytest.raises(errors.InvalidConfig, match="`mode` must be one of"):
        Replay("on")


def test_fingerprint_is_shown_in_full() -> None:
    """A value has all its digits."""
    assert str(at(1, 0xABC)) == "0x0000000000000abc"
