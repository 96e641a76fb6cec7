"""What happens if a checkpoint cannot be saved, a run fails, or an option cannot work."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from lightning.pytorch import Callback
from lightning.pytorch.plugins import AsyncCheckpointIO

from lightning_elche.callbacks.partition_checkpoint import PartitionCheckpoint
from lightning_elche.partition.checkpoint_errors import UnsupportedState, WriteFailed
from lightning_elche.partition.errors import InvalidConfig, ReplayDivergence
from lightning_elche.partition.fs import LocalFs
from lightning_elche.partition.replay import ReplayConfig
from lightning_elche.partition.store_config import StoreConfig
from lightning_elche.partition.worker import PartitionConfig, PartitionWorker
from lightning_elche.strategies.checkpoint_io import PartitionCheckpointIO
from tests.callbacks.partitioned import Acts, Drawing, fit_drawing, names_in, saver_of
from tests.ranks import make_loader


class Holds(Callback):
    """Has a state of its own."""

    def __init__(self, state: Any) -> None:
        self.state = state

    def state_dict(self) -> dict[str, Any]:
        return {"held": self.state}


def test_state_that_cannot_be_stored_fails_before_the_first_step(tmp_path: Path) -> None:
    """The error says where it is."""
    model = Drawing()
    with pytest.raises(UnsupportedState, match=r"/callbacks/Holds/held .* builtins|type function"):
        fit_drawing(saver_of(tmp_path), model=model, more=[Holds(lambda: None)])
    assert model.ids == []


def test_disk_that_is_too_small_fails_before_the_first_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two checkpoints, with the moments that AdamW will have, need more than there is."""
    monkeypatch.setattr(LocalFs, "free_bytes", lambda *_: 4000)
    model = Drawing()
    with pytest.raises(WriteFailed, match="two checkpoints need"):
        fit_drawing(saver_of(tmp_path), model=model)
    assert model.ids == []


def test_failure_in_the_background_is_raised_and_nothing_is_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At the latest when the next one is due."""
    saver, model = saver_of(tmp_path), Drawing()

    def fail(*_: Any) -> int:
        raise OSError(28, "No space left on device")

    def fill_disk() -> None:  # before the checkpoint of step 3, and after that of step 2
        saver.wait()
        monkeypatch.setattr(LocalFs, "pwrite", fail)

    with pytest.raises(WriteFailed, match="No space left"):
        fit_drawing(saver, model=model, more=[Acts(fill_disk)])
    assert names_in(tmp_path)[-1:] == ["step-00000002"]
    assert len(model.ids) <= 5


def test_failure_to_write_may_be_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Training goes on then."""
    saver = saver_of(tmp_path, every=4, store=StoreConfig(on_write_error="warn"))
    rename = LocalFs.rename

    def fail(fs: LocalFs, source: Path, target: Path) -> None:
        if target.name == "step-00000004":
            raise OSError(5, os.strerror(5))
        rename(fs, source, target)

    monkeypatch.setattr(LocalFs, "rename", fail)
    with pytest.warns(UserWarning, match="training goes on"):
        fit_drawing(saver)
    assert names_in(tmp_path) == [f"step-{step:08d}" for step in (8, 12, 16)]


def test_run_that_fails_leaves_its_last_step(tmp_path: Path) -> None:
    """With a label, so that it stays."""
    saver = saver_of(tmp_path, every=2)
    with pytest.raises(ArithmeticError):
        fit_drawing(saver, model=Drawing(fails_at=3))
    assert names_in(tmp_path) == ["step-00000002", "step-00000003-exception"]


def test_run_that_fails_between_two_steps_is_saved_with_accumulation(tmp_path: Path) -> None:
    """After a batch that has ended a step, and not with gradients that no checkpoint holds."""
    for name, fails_at in (("between", 4), ("within", 5)):
        model, saver = Drawing(fails_at=fails_at), saver_of(tmp_path / name, every=None)
        with pytest.raises(ArithmeticError):
            fit_drawing(saver, model=model, accumulate_grad_batches=2)
    assert names_in(tmp_path / "between") == ["step-00000002-exception"]
    assert names_in(tmp_path / "within") == []


def test_wrong_use_is_refused(tmp_path: Path) -> None:
    """The option is named, or what is needed."""
    with pytest.raises(InvalidConfig, match="`rng` must be one of"):
        PartitionCheckpoint(tmp_path, rng="often")  # type: ignore[arg-type]
    with pytest.raises(RuntimeError, match=r"only during `Trainer\.fit`"):
        PartitionCheckpoint(tmp_path).checkpoint()
    with pytest.raises(InvalidConfig, match="AsyncCheckpointIO"):
        fit_drawing(saver_of(tmp_path), plugins=[AsyncCheckpointIO()])


def test_state_that_diverged_is_put_into_quarantine(tmp_path: Path) -> None:
    """Where nobody resumes from it, and anybody can look at it."""
    fit_drawing(saver_of(tmp_path / "a", every=4, replay=ReplayConfig(mode="record")))
    replay = ReplayConfig(mode="verify", expected=str(tmp_path / "a"))

    class Spoils(Callback):
        def on_train_batch_end(self, *args: Any) -> None:
            if args[-1] == 2:
                args[1].layers[0].weight.data[0, 0] += 1e-3

    saver = saver_of(tmp_path / "b", every=4, replay=replay)
    with pytest.raises(ReplayDivergence):
        fit_drawing(saver, more=[Spoils()])
    assert os.listdir(tmp_path / "b" / "quarantine") == ["diverged-step-00000003"]
    assert PartitionCheckpoint(tmp_path / "b").resume_path() is None


def test_workers_elsewhere_are_refused() -> None:
    """If the executor would leave them without rows, or there are none."""
    far = (PartitionWorker.external("far", endpoint="memory://far"),)
    with pytest.raises(InvalidConfig, match="`executor` must be 'auto' or 'endpoint' with"):
        PartitionCheckpointIO(partitions=PartitionConfig(workers=far, executor="serial"))
    with pytest.raises(InvalidConfig, match="`workers` must have an external one"):
        PartitionCheckpointIO(partitions=PartitionConfig(executor="endpoint"))
    device = (PartitionWorker.cuda_device("near", 0),)
    with pytest.raises(InvalidConfig, match="got 'cuda_device'"):
        PartitionCheckpointIO(partitions=PartitionConfig(workers=device))


def test_several_loaders_are_refused(tmp_path: Path) -> None:
    """Each would need a position of its own."""
    loaders = {"one": make_loader(8), "other": make_loader(8)}
    with pytest.raises(InvalidConfig, match="`train_dataloader` must be one loader"):
        fit_drawing(saver_of(tmp_path), data=loaders)
