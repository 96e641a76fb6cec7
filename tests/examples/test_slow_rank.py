"""Tests of the callback that makes a rank slow."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import slow_rank
from slow_rank import SlowDown


class FakeTime:
    """A clock on which every sleep takes `late_s` longer than asked for."""

    def __init__(self, late_s: float = 0.0) -> None:
        self.now = 0.0
        self.late_s = late_s
        self.slept: list[float] = []

    def perf_counter(self) -> float:
        """Return the seconds so far."""
        return self.now

    def sleep(self, seconds: float) -> None:
        """Let time pass."""
        self.slept.append(seconds)
        self.now += seconds + self.late_s


@pytest.fixture
def fake_time(monkeypatch: pytest.MonkeyPatch) -> FakeTime:
    """The time that the callback sees."""
    fake = FakeTime()
    monkeypatch.setattr(slow_rank, "time", fake)
    return fake


def train_batch(
    callback: SlowDown, time: FakeTime, *, rank: int, compute_s: float, after_s: float = 0.0
) -> None:
    """Let `rank` train a batch, of which `after_s` seconds come after the callback has slept."""
    trainer: Any = SimpleNamespace(global_rank=rank)
    callback.on_train_batch_start(trainer, None, None, 0)  # type: ignore[arg-type]
    time.now += compute_s
    callback.on_before_optimizer_step(trainer, None, None)  # type: ignore[arg-type]
    time.now += after_s
    callback.on_train_batch_end(trainer, None, None, None, 0)  # type: ignore[arg-type]


def test_a_batch_of_the_slow_rank_takes_factor_times_as_long(fake_time: FakeTime) -> None:
    """Half a second of work at factor 4 takes two seconds."""
    train_batch(SlowDown(rank=1, factor=4.0), fake_time, rank=1, compute_s=0.5)
    assert fake_time.now == 2.0


def test_what_a_batch_takes_after_the_sleep_counts_for_the_next(fake_time: FakeTime) -> None:
    """The step of the optimizer comes then."""
    callback = SlowDown(rank=1, factor=3.0)
    for _ in range(2):
        train_batch(callback, fake_time, rank=1, compute_s=1.0, after_s=0.5)
    assert fake_time.slept == [2.0, 3.0]


def test_the_other_ranks_do_not_sleep(fake_time: FakeTime) -> None:
    """Only the chosen rank is slowed down."""
    train_batch(SlowDown(rank=1, factor=4.0), fake_time, rank=0, compute_s=0.5)
    assert fake_time.slept == []


def test_factor_one_does_not_sleep(fake_time: FakeTime) -> None:
    """A factor of one changes nothing."""
    train_batch(SlowDown(rank=1, factor=1.0), fake_time, rank=1, compute_s=0.5)
    assert fake_time.slept == []


def test_the_next_sleep_is_shorter_by_what_the_last_was_too_long(fake_time: FakeTime) -> None:
    """Waking late does not add up over many batches."""
    fake_time.late_s = 0.25
    callback = SlowDown(rank=1, factor=2.0)
    for _ in range(3):
        train_batch(callback, fake_time, rank=1, compute_s=1.0)
    assert fake_time.slept == [1.0, 0.75, 0.75]


def test_oversleeping_more_than_a_pause_is_paid_back_over_several(fake_time: FakeTime) -> None:
    """A debt larger than the pause cancels it and goes on."""
    fake_time.late_s = 1.5
    callback = SlowDown(rank=1, factor=2.0)
    for _ in range(3):
        train_batch(callback, fake_time, rank=1, compute_s=1.0)
    assert fake_time.slept == [1.0, 0.5]


@pytest.mark.parametrize("factor", [0.5, float("nan")])
def test_a_factor_below_one_is_refused(factor: float) -> None:
    """A rank cannot be made faster."""
    with pytest.raises(ValueError, match="`factor` must be >= 1"):
        SlowDown(factor=factor)
