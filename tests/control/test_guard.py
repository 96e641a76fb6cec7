"""The convergence guard."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightning_elche.control.guard import ConvergenceGuard, GuardAction, GuardConfig

STABLE, HOLD, TIGHTEN = GuardAction.STABLE, GuardAction.HOLD, GuardAction.TIGHTEN


def actions(*deltas: float, **options: Any) -> list[GuardAction]:
    """Return what a new guard says to each of `deltas`."""
    guard = ConvergenceGuard(GuardConfig(**options))
    return [guard.report(delta) for delta in deltas]


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"threshold": 0.0}, "threshold"),
        ({"threshold": float("nan")}, "threshold"),
        ({"history": 2}, "history"),
    ],
)
def test_config_is_refused_with_the_name_of_a_bad_value(
    options: dict[str, Any], named: str
) -> None:
    """A value outside its range raises an error that names the parameter."""
    with pytest.raises(ValueError, match=f"`{named}`"):
        GuardConfig(**options)


@pytest.mark.parametrize(
    ("deltas", "action"),
    [
        ((0.02, 0.04, 0.06), HOLD),
        ((0.02, 0.04, 0.0501), HOLD),
        ((0.02, 0.04, 0.05), STABLE),  # not above the threshold
        ((0.04, 0.04, 0.06), STABLE),  # not strictly rising
        ((0.06, 0.08, 0.07), HOLD),  # all above the threshold, in any order
        ((0.10, 0.08, 0.06), HOLD),
        ((0.10, 0.08, 0.05), STABLE),
        ((0.01, 0.01, 9.0), STABLE),  # one spike never acts
        ((9.0, 9.0, 0.01), STABLE),
        ((0.21, 0.30, 0.25), TIGHTEN),  # all above four times the threshold
        ((0.21, 0.30, 0.40), TIGHTEN),  # before the trend, which is also there
        ((0.20, 0.30, 0.25), HOLD),  # one of them at the limit
        ((0.20, 0.30, 0.40), HOLD),
        ((math.nan, math.inf, math.nan), TIGHTEN),
        ((0.01, 0.02, math.nan), HOLD),
    ],
)
def test_guard_acts_on_the_last_three_events(
    deltas: tuple[float, ...], action: GuardAction
) -> None:
    """Large or rising values hold, larger ones tighten, and what is not finite is infinite."""
    assert actions(*deltas)[-1] is action


def test_windows_do_not_grow_on_a_large_first_divergence() -> None:
    """Two values hold if they are all that is known, and never tighten, however large."""
    assert actions(9.0, 99.0) == [HOLD, HOLD]
    assert actions(0.04, 99.0) == [STABLE, STABLE]


def test_guard_looks_at_the_last_three_events_only() -> None:
    """Old values do not count, neither for nor against."""
    assert actions(9.0, 9.0, 0.02, 0.04, 0.06, 0.06) == [HOLD, HOLD, STABLE, STABLE, HOLD, STABLE]


def test_disabled_guard_never_acts() -> None:
    """`enabled=False` ignores any divergence."""
    assert actions(1.0, 2.0, 3.0, 4.0, enabled=False) == [STABLE] * 4


def test_threshold_scales_both_rules() -> None:
    """A higher threshold lets more divergence pass."""
    assert actions(0.21, 0.30, 0.40, threshold=0.5)[-1] is STABLE


def test_history_keeps_the_most_recent_events() -> None:
    """The memory is a ring of `history` values."""
    guard = ConvergenceGuard(GuardConfig(history=3))
    for delta in (1.0, 2.0, 3.0, 4.0):
        guard.report(delta)
    assert guard.deltas == (2.0, 3.0, 4.0)


def test_state_is_cut_to_a_shorter_history() -> None:
    """A guard with less memory keeps the most recent values of a state."""
    guard = ConvergenceGuard(GuardConfig(history=3))
    guard.load_state_dict({"deltas": [1.0, 2.0, 3.0, 4.0, 5.0]})
    assert guard.state_dict() == {"deltas": [3.0, 4.0, 5.0]}


def test_reset_forgets_all_events() -> None:
    """After a reset a trend needs three new events."""
    guard = ConvergenceGuard()
    guard.load_state_dict({"deltas": [0.02]})
    guard.reset()
    assert guard.deltas == ()
    assert [guard.report(delta) for delta in (0.04, 0.06)] == [STABLE, STABLE]


def test_repr_shows_what_matters() -> None:
    """The text names the threshold and the remembered values."""
    guard = ConvergenceGuard()
    guard.report(0.0123456)
    assert repr(guard) == "ConvergenceGuard(threshold=0.05, deltas=[0.0123])"


@given(
    past=st.lists(st.floats(min_value=0.0, max_value=1.0), max_size=8),
    future=st.lists(st.floats(min_value=0.0, max_value=1.0), max_size=8),
)
def test_state_round_trip_continues_identically(past: list[float], future: list[float]) -> None:
    """A restored guard decides as the one that went on."""
    original, restored = ConvergenceGuard(), ConvergenceGuard()
    for delta in past:
        original.report(delta)
    restored.load_state_dict(original.state_dict())
    assert [restored.report(d) for d in future] == [original.report(d) for d in future]


@given(
    quiet=st.lists(st.floats(min_value=0.0, max_value=0.05), min_size=4, max_size=10),
    at=st.integers(min_value=0, max_value=9),
    spike=st.floats(min_value=0.2, max_value=1e6),
)
def test_single_spike_never_tightens(quiet: list[float], at: int, spike: float) -> None:
    """One large value among small ones does not shorten the window, wherever it is."""
    quiet.insert(min(at, len(quiet)), spike)
    assert TIGHTEN not in actions(*quiet)
