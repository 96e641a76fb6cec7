"""A rank that fails or dies while all ranks write one checkpoint."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest
from lightning.pytorch import Callback

from lightning_elche import CadenceConfig, ElCheStrategy
from lightning_elche.exceptions import ElCheError
from lightning_elche.partition.fs import LocalFs, this_host
from lightning_elche.partition.read_root import choose_checkpoint
from lightning_elche.partition.store_config import StoreConfig
from lightning_elche.testing import run_ranks
from tests.callbacks.partitioned import Drawing, names_in, saver_of
from tests.ranks import make_loader, make_trainer

pytestmark = pytest.mark.slow


class Breaks(Callback):
    """Lets rank 1 be unable to write, once the first checkpoint is in its place."""

    def __init__(self, saver: Any, *, dies: bool) -> None:
        self.saver, self.dies = saver, dies

    def on_average_end(self, event: Any) -> None:
        if self.saver.metrics()["checkpoints_created"] == 0:
            return
        if os.environ["RANK"] == "1":
            LocalFs.pwrite = self.fail  # type: ignore[method-assign]

    def fail(self, *_: Any) -> int:
        if self.dies:
            os.kill(os.getpid(), signal.SIGKILL)
        raise OSError(28, os.strerror(28))


def train(root: str, *, dies: bool) -> tuple[str, str]:
    """Return the error that ends the run of this rank."""
    saver = saver_of(root, every=4, store=StoreConfig(durability="flush"))
    trainer = make_trainer(
        2,
        strategy=ElCheStrategy(cadence=CadenceConfig(anchor=2, max_anchor=2), timeout_s=20.0),
        callbacks=[Breaks(saver, dies=dies), saver],
        enable_checkpointing=True,
        max_epochs=4,
    )
    try:
        trainer.fit(Drawing(), make_loader(200))
    except ElCheError as err:
        return type(err).__name__, str(err)
    return "", ""


def test_full_disk_of_one_rank_ends_the_run_of_all(tmp_path: Path) -> None:
    """The error says what it was, and what was saved before is there still."""
    ranks = run_ranks(train, world_size=2, timeout_s=60.0, root=str(tmp_path), dies=False)
    # A rank that raises late may hear first that the other has.
    assert "WriteFailed" in {one.value[0] for one in ranks} <= {"WriteFailed", "RankFailed"}
    assert all("rank 1: " in one.value[1] and "No space left" in one.value[1] for one in ranks)
    choice = choose_checkpoint(this_host().fs, tmp_path)
    assert (choice.path.name, choice.rejections) == (names_in(tmp_path)[-1], ())


def test_death_of_one_rank_ends_the_run_of_the_other(tmp_path: Path) -> None:
    """It does not wait for the parts of the dead one, and nothing is lost."""
    ranks = run_ranks(
        train, world_size=2, timeout_s=60.0, check=False, root=str(tmp_path), dies=True
    )
    assert ranks[1].returncode == -signal.SIGKILL
    assert ranks[0].value[0] in ("WriteFailed", "PeerLost")
    choice = choose_checkpoint(this_host().fs, tmp_path)
    assert (choice.path.name, choice.rejections) == (names_in(tmp_path)[-1], ())
