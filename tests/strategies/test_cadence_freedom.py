"""A fast rank keeps its own pace beside a slow one."""

from __future__ import annotations

from typing import Any

import pytest

from lightning_elche.testing import run_ranks
from tests.ranks import fit
from tests.strategies.test_predictions import BATCH_SIZE, Timed, solo_ms

pytestmark = [pytest.mark.slow, pytest.mark.timing]

FAST_MS, SLOW_MS = 20.0, 200.0
BATCHES = 200


def train() -> tuple[float, int]:
    model = Timed((FAST_MS, SLOW_MS))
    fit(2, size=BATCH_SIZE * BATCHES, model=model, max_epochs=2)
    return 1000.0 * (model.ends[1] - model.begins[1]), len(model.ids[1]) // BATCH_SIZE


def test_rank_of_ten_times_the_speed_is_hardly_held_up() -> None:
    """It takes at most 1.15 times as long for its batches as it does without the other one."""
    alone_ms = solo_ms(FAST_MS)
    ranks: list[Any] = run_ranks(train, world_size=2)
    taken_ms, batches = ranks[0].value
    assert batches > 0.8 * BATCHES
    assert taken_ms <= 1.15 * batches * alone_ms, (taken_ms / batches, alone_ms)
