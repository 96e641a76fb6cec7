"""Data that begin anew."""

from __future__ import annotations

import logging
from itertools import islice

import pytest
from torch.utils.data import DataLoader

from lightning_elche.data.cycle import Cycle


def test_items_come_in_order_again_and_again() -> None:
    """Each pass is the same."""
    assert list(islice(Cycle([1, 2, 3]), 7)) == [1, 2, 3, 1, 2, 3, 1]


def test_first_wrap_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    """Not before the data are used up."""
    data = Cycle("ab")
    items = iter(data)
    with caplog.at_level(logging.INFO):
        assert (next(items), next(items), data.has_wrapped) == ("a", "b", False)
        assert [next(items) for _ in range(4)] == ["a", "b", "a", "b"]
    assert (data.has_wrapped, len(caplog.records)) == (True, 1)


@pytest.mark.slow
def test_wrap_in_a_worker_is_seen_here() -> None:
    """A worker of a DataLoader is a process of its own."""
    data = Cycle(range(3))
    loader = DataLoader(data, batch_size=2, num_workers=1)
    assert len(list(islice(loader, 4))) == 4
    assert data.has_wrapped


def test_nothing_to_repeat_is_an_error() -> None:
    """It would search for an item forever."""
    with pytest.raises(ValueError, match="`data` must hold at least one item"):
        next(iter(Cycle([])))
