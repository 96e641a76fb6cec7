"""Steps in portions."""

from __future__ import annotations

from collections.abc import Sequence

from lightning_elche.callbacks.gate_buffer import StepBuffer
from lightning_elche.contracts.records import StepRecord


class Taken:
    """Notes the portions, by a clock of its own."""

    def __init__(self) -> None:
        self.now = 0.0
        self.portions: list[list[int]] = []
        self.buffer = StepBuffer(self.take, most=3, within_ms=100.0, clock=lambda: self.now)

    def take(self, records: Sequence[StepRecord]) -> None:
        self.portions.append([record.step for record in records])

    def add(self, *steps: int) -> None:
        for step in steps:
            self.buffer.add(
                StepRecord(
                    step=step,
                    train_loss=2.0,
                    grad_norm=1.0,
                    lr=0.1,
                    tokens_per_sec=1.0,
                    gpu_util_pct=0.0,
                )
            )


def test_portion_is_full_after_so_many_steps() -> None:
    """All steps come, in order, each once."""
    taken = Taken()
    taken.add(0, 1, 2, 3)
    assert taken.portions == [[0, 1, 2]]
    taken.buffer.drain()
    assert taken.portions == [[0, 1, 2], [3]]


def test_portion_is_taken_after_some_time_though_it_is_small() -> None:
    """A slow step does not wait for others."""
    taken = Taken()
    taken.add(0)
    taken.now = 0.1
    taken.add(1)
    taken.add(2)
    assert taken.portions == [[0, 1]]


def test_nothing_is_not_a_portion() -> None:
    """Whoever looks may drain at any time."""
    taken = Taken()
    taken.buffer.drain()
    assert taken.portions == []
