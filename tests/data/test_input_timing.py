"""Waiting for a batch is timed, and the loader stays what it was."""

from __future__ import annotations

import pickle
from typing import Any

import pytest
from torch.utils.data import DataLoader

from lightning_elche.data.input_timing import InputTiming, timed
from tests.ranks import Numbered, make_loader


class SteppingClock:
    """Nanoseconds, ten more at each look."""

    def __init__(self) -> None:
        self.now_ns = 0

    def __call__(self) -> int:
        self.now_ns += 10
        return self.now_ns


def timing_of() -> tuple[InputTiming, list[tuple[int, int]]]:
    waits: list[tuple[int, int]] = []
    timing = InputTiming(SteppingClock())
    timing.listeners.append(lambda *wait: waits.append(wait))
    return timing, waits


class Own(DataLoader[Any]):
    """A subclass with something of its own."""

    word = "own"


@pytest.mark.parametrize("num_workers", [0, 1])
def test_each_next_is_timed(num_workers: int) -> None:
    """Also the last one, which finds no more batches."""
    timing, waits = timing_of()
    loader: Any = timed(make_loader(8, num_workers=num_workers), timing)
    assert sorted(index for _, ids in loader for index in ids.tolist()) == list(range(8))
    assert waits == [(10, 10), (30, 10), (50, 10)]


def test_loader_keeps_its_kind_and_its_options() -> None:
    """Lightning looks at both."""
    loader = Own(Numbered(8), batch_size=4)
    copied: Any = timed(loader, InputTiming())
    assert isinstance(copied, Own)
    assert (copied.word, len(copied), copied.batch_sampler) == ("own", 2, loader.batch_sampler)
    assert copied is not loader


def test_what_is_no_loader_is_left_alone() -> None:
    """Such as a list of batches."""
    batches = [1, 2]
    assert timed(batches, InputTiming()) is batches


def test_error_of_a_batch_is_passed_on() -> None:
    """And its wait is timed."""
    timing, waits = timing_of()
    loader: Any = timed(DataLoader([1, pickle], batch_size=1), timing)
    batches = iter(loader)
    next(batches)
    with pytest.raises(TypeError):
        next(batches)
    assert len(waits) == 2
