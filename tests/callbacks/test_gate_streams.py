"""A training contract and data that end early, or begin anew."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader, IterableDataset

from lightning_elche import GateTrain
from lightning_elche.data import Cycle
from tests.callbacks.gated import Scripted, lines_of, run_of
from tests.ranks import Numbered, make_trainer


class Stream(IterableDataset[tuple[torch.Tensor, int]]):
    """Three batches of four."""

    def __iter__(self) -> Any:
        return islice(iter(Numbered(12)), 12)


@pytest.mark.parametrize("size", [12, 0])
def test_stream_that_ends_early_aborts(size: int, tmp_path: Path) -> None:
    """Lightning takes it for the end of the epoch, and an empty one for success."""
    trainer = make_trainer(1, strategy="auto", callbacks=[GateTrain(run_dir=tmp_path)])
    trainer.limit_train_batches = 5
    data = Stream() if size else Cut(Numbered(12))
    with pytest.raises(RuntimeError, match=r"STREAM_EXHAUSTED at epoch 0: [03] of 5 batches"):
        trainer.fit(Scripted(), DataLoader(data, 4), DataLoader(Numbered(8), 4))
    assert run_of(tmp_path)["exit_code"] == 31


class Cut(IterableDataset[Any]):
    """Nothing."""

    def __init__(self, data: Any) -> None:
        self.data = data

    def __iter__(self) -> Any:
        return iter(())


@pytest.mark.filterwarnings("ignore:Total length of")
def test_sized_loader_without_batches_aborts(tmp_path: Path) -> None:
    """Lightning does not begin to train, and is content."""
    trainer = make_trainer(1, strategy="auto", callbacks=[GateTrain(run_dir=tmp_path)])
    with pytest.raises(RuntimeError, match="STREAM_EXHAUSTED at epoch 0: 0 batches"):
        trainer.fit(Scripted(), DataLoader(Numbered(0), 4), DataLoader(Numbered(8), 4))


def test_cycle_is_announced(tmp_path: Path) -> None:
    """Data that are meant to begin anew do not exhaust."""
    trainer = make_trainer(
        1, strategy="auto", limit_train_batches=5, callbacks=[GateTrain(run_dir=tmp_path)]
    )
    loader = DataLoader(Cycle(Stream()), batch_size=4)
    trainer.fit(Scripted(), loader, DataLoader(Numbered(8), 4))
    events = lines_of(tmp_path / "events.jsonl")
    assert [event["tokens"] for event in events if event["event"] == "CYCLE"] == [20]
