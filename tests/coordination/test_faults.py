"""What a rank does about batches that do not fit, and about spoiled parameters."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightning_elche.coordination.faults import FaultConfig, HealLadder, OomLadder, Rung

CONFIGS = st.builds(
    FaultConfig,
    max_consecutive=st.integers(1, 6),
    max_sit_outs=st.integers(0, 4),
)


def actions(ladder: OomLadder, failures: int, *, can_halve: bool = False) -> list[str]:
    return [ladder.skipped(can_halve=can_halve).action for _ in range(failures)]


def test_rungs_come_in_their_order() -> None:
    """Five skipped in a row; 1, 2 and 4 events sat out, with a probe after each; the end."""
    ladder = OomLadder()
    rungs = [ladder.skipped(can_halve=False) for _ in range(8)]
    assert [rung.action for rung in rungs] == [*4 * ["skip"], *3 * ["sit_out"], "stop"]
    assert [rung.events for rung in rungs[4:7]] == [1, 2, 4]
    assert rungs[7] == Rung(action="stop", failures=8)


def test_smaller_batches_are_tried_before_the_rank_sits_out() -> None:
    """Each time after five more in a row, for as long as the size can be halved."""
    ladder = OomLadder()
    assert actions(ladder, 10, can_halve=True) == [*4 * ["skip"], "halve"] * 2
    assert actions(ladder, 5) == [*4 * ["skip"], "sit_out"]


def test_batch_that_fits_leads_back_to_the_ground() -> None:
    """A probe that fits, too."""
    ladder = OomLadder()
    actions(ladder, 6)
    assert ladder.is_probing
    ladder.learnt()
    assert not ladder.is_probing
    assert actions(ladder, 5) == [*4 * ["skip"], "sit_out"]


def test_rank_without_sit_outs_stops_at_once() -> None:
    """After as many in a row as are allowed."""
    ladder = OomLadder(FaultConfig(max_consecutive=2, max_sit_outs=0))
    assert actions(ladder, 2) == ["skip", "stop"]


@given(CONFIGS, st.lists(st.booleans(), max_size=60))
def test_ladder_ends_only_after_all_failures_that_it_allows(
    config: FaultConfig, fits: list[bool]
) -> None:
    """In a row, whatever came before."""
    ladder, in_a_row, limit = OomLadder(config), 0, config.max_consecutive + config.max_sit_outs
    for does_fit in fits:
        if does_fit:
            ladder.learnt()
            in_a_row = 0
            continue
        in_a_row += 1
        rung = ladder.skipped(can_halve=False)
        assert (rung.action == "stop") == (in_a_row >= limit)
        assert rung.failures == in_a_row


def test_run_ends_when_a_rank_was_spoiled_five_times_in_a_row() -> None:
    """A sound event in between begins the count anew."""
    ladder = HealLadder()
    spoiled = [False] * 4
    assert not any(ladder.report(is_finite=is_finite) for is_finite in [*spoiled, True, *spoiled])
    assert ladder.report(is_finite=False)
    assert ladder.failures == 5


def test_run_ends_at_once_if_nothing_is_to_be_healed() -> None:
    """That is what `raise` says."""
    assert HealLadder(FaultConfig(nonfinite="raise")).report(is_finite=False)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"oom": "ignore"}, '`oom` must be "skip" or "raise", got \'ignore\''),
        ({"nonfinite": "nan"}, '`nonfinite` must be "heal" or "raise", got \'nan\''),
        ({"max_consecutive": 0}, "`max_consecutive` must be >= 1, got 0"),
        ({"max_sit_outs": 11}, "`max_sit_outs` must be from 0 to 10, got 11"),
    ],
)
def test_bad_option_is_named(options: dict[str, Any], words: str) -> None:
    """With what it should be."""
    with pytest.raises(ValueError, match=words):
        FaultConfig(**options)
