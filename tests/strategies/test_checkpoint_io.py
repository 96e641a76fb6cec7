"""Lightning's plugin that reads and writes partitioned checkpoints."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from lightning_elche.partition.checkpoint_errors import Corrupt, NoValidCheckpoint
from lightning_elche.partition.errors import InvalidConfig
from lightning_elche.partition.worker import PartitionConfig
from lightning_elche.strategies.checkpoint_io import PartitionCheckpointIO
from tests.callbacks.partitioned import Drawing
from tests.ranks import make_loader, make_trainer


def state(step: int = 3) -> dict[str, Any]:
    return {"state_dict": {"w": torch.arange(4.0)}, "global_step": step, "epoch": 1}


def test_state_is_saved_and_loaded(tmp_path: Path) -> None:
    """The file of the model is one that safetensors reads, here by its first bytes."""
    io = PartitionCheckpointIO()
    io.save_checkpoint(state(), tmp_path / "step-00000003")
    loaded = io.load_checkpoint(tmp_path / "step-00000003")
    assert torch.equal(loaded.pop("state_dict")["w"], torch.arange(4.0))
    assert loaded == {"global_step": 3, "epoch": 1}


def test_folder_stands_for_its_newest_checkpoint(tmp_path: Path) -> None:
    """That is the one saved last."""
    io = PartitionCheckpointIO(partitions=PartitionConfig(executor="serial"))
    for step in (3, 12):
        io.save_checkpoint(state(step), tmp_path / f"step-{step:08d}")
    assert io.load_checkpoint(tmp_path)["global_step"] == 12
    assert io.last_loaded is not None
    assert io.last_loaded.path == tmp_path / "step-00000012"


def test_damaged_checkpoint_is_never_loaded(tmp_path: Path) -> None:
    """Neither by its name nor as one of the folder."""
    io = PartitionCheckpointIO()
    io.save_checkpoint(state(), tmp_path / "step-00000003")
    image = tmp_path / "step-00000003" / "model.safetensors"
    image.write_bytes(image.read_bytes()[:-1] + b"\x01")
    with pytest.raises(Corrupt, match=r"model\.safetensors"):
        io.load_checkpoint(tmp_path / "step-00000003")
    with pytest.raises(NoValidCheckpoint):
        io.load_checkpoint(tmp_path)


def test_other_paths_go_to_the_inner_plugin(tmp_path: Path) -> None:
    """It writes what torch reads."""
    io = PartitionCheckpointIO()
    io.save_checkpoint(state(), tmp_path / "a.ckpt")
    assert torch.load(tmp_path / "a.ckpt")["global_step"] == 3
    assert io.load_checkpoint(tmp_path / "a.ckpt")["epoch"] == 1
    io.remove_checkpoint(str(tmp_path / "a.ckpt"))  # old releases of fsspec take no Path
    assert not (tmp_path / "a.ckpt").exists()


def test_trainer_saves_with_the_plugin_alone(tmp_path: Path) -> None:
    """Without the callback a save is over when it returns."""
    io = PartitionCheckpointIO()
    trainer = make_trainer(1, strategy="auto", plugins=[io], max_steps=2)
    trainer.fit(Drawing(), make_loader(40))
    trainer.save_checkpoint(tmp_path / "step-00000002-mine", weights_only=False)
    assert sorted(path.name for path in (tmp_path / "step-00000002-mine").iterdir()) == [
        "manifest.json",
        "model.safetensors",
        "optimizer-0.safetensors",
        "replay.jsonl",
        "tree.json",
    ]


def test_wrong_use_is_refused(tmp_path: Path) -> None:
    """The name must tell the step, stores remove their own, and an executor has its workers."""
    io = PartitionCheckpointIO()
    with pytest.raises(ValueError, match="`path` must end in the step"):
        io.save_checkpoint(state(), tmp_path / "step-00000004")
    with pytest.raises(ValueError, match="`max_retained`"):
        io.remove_checkpoint(tmp_path / "step-00000004")
    with pytest.raises(InvalidConfig, match="`workers` must have an external one"):
        PartitionCheckpointIO(partitions=PartitionConfig(executor="endpoint"))
