"""Replicas that are not equal after an average, or at a checkpoint under DDP."""

from __future__ import annotations

from pathlib import Path

import pytest

from lightning_elche.testing import run_ranks
from tests.callbacks.agreeing import train_flipped
from tests.callbacks.partitioned import names_in

pytestmark = pytest.mark.slow


def test_one_rank_of_three_is_named_or_repaired(tmp_path: Path) -> None:
    """All ranks raise the same error, or go on with the bits of the two that agree."""
    ranks = run_ranks(
        train_flipped,
        world_size=3,
        timeout_s=60.0,
        root=str(tmp_path),
        ways=("repair", "raise"),
        rank=2,
    )
    repaired, raised = zip(*(one.value for one in ranks), strict=True)
    assert [one["error"] for one in repaired] == [None] * 3
    assert len({one["weight"] for one in repaired}) == 1
    assert all(one["has_flipped"] for one in (*repaired, *raised))
    assert "suspect ranks: (2,). They have the bits of the other ranks now" in ranks[0].output
    errors = {one["error"] for one in raised}
    assert [suspects for _, suspects, _ in errors] == [(2,)]


def test_one_rank_of_two_is_not_named_under_ddp(tmp_path: Path) -> None:
    """It is found at the next checkpoint, which is not saved; a warning is given once."""
    ranks = run_ranks(
        train_flipped,
        world_size=2,
        timeout_s=60.0,
        root=str(tmp_path),
        ways=("warn", "raise"),
        is_ddp=True,
    )
    warned, raised = zip(*(one.value for one in ranks), strict=True)
    assert [one["error"] for one in warned] == [None, None]
    assert ranks[0].output.count("suspect ranks: (). Training goes on.") == 1
    assert [one["error"][:2] for one in raised] == [(4, ())] * 2
    assert names_in(tmp_path / "raise") == []
