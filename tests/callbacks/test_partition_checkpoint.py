"""When checkpoints are saved, and what is known of them."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.cli import LightningCLI

from lightning_elche.callbacks.partition_checkpoint import PartitionCheckpoint
from lightning_elche.partition.policy import CheckpointPolicy
from lightning_elche.partition.replay import ReplayConfig
from lightning_elche.partition.store_config import StoreConfig
from tests.callbacks.partitioned import (
    Acts,
    Drawing,
    Validating,
    ends_equal,
    fit_drawing,
    names_in,
    saver_of,
)
from tests.ranks import make_loader


def test_policy_says_when(tmp_path: Path) -> None:
    """At multiples of steps, and after each second epoch of six."""
    policy = CheckpointPolicy(every_steps=5, every_epochs=2)
    fit_drawing(PartitionCheckpoint(tmp_path, policy=policy))
    assert names_in(tmp_path) == [f"step-{step:08d}" for step in (5, 10, 12, 15)]


def test_step_at_the_end_of_an_epoch_is_saved_once_it_was_validated(tmp_path: Path) -> None:
    """So that gates have seen it."""
    saver = saver_of(tmp_path, every=6)
    seen: list[Path | None] = []

    class Validated(Callback):
        def on_validation_end(self, *_: Any) -> None:
            seen.append(saver.latest)

    fit_drawing(saver, model=Validating(), more=[Validated()], max_epochs=1)
    assert seen == [None]
    assert names_in(tmp_path) == ["step-00000006"]


def test_oldest_checkpoints_go_and_labelled_ones_stay(tmp_path: Path) -> None:
    """`checkpoint` is for users, who name what they want to keep."""
    saver = saver_of(tmp_path, store=StoreConfig(max_retained=2, durability="flush"))
    fit_drawing(saver, more=[Acts(lambda: saver.checkpoint("good", wait=True))], max_epochs=1)
    assert names_in(tmp_path) == ["step-00000003-good", "step-00000005", "step-00000006"]


def test_members_tell_of_the_newest_checkpoint(tmp_path: Path) -> None:
    """The digest of the optimizer is that of its file."""
    saver = saver_of(tmp_path, every=5)
    fit_drawing(saver, max_epochs=1)
    path = tmp_path / "step-00000005"
    assert (saver.latest, saver.best_model_path, saver.resume_path()) == (
        path,
        str(path),
        str(path),
    )
    image = (path / "optimizer-0.safetensors").read_bytes()
    assert saver.optimizer_state_sha(5) == hashlib.sha256(image).hexdigest()


def test_metrics_count_what_was_saved(tmp_path: Path) -> None:
    """Each tensor of this model is one row, and one process has one partition."""
    saver = saver_of(tmp_path, every=2)
    fit_drawing(saver, max_epochs=1)
    metrics = saver.metrics()
    assert metrics.pop("checkpoint_p95_s") > 0.0
    assert metrics.pop("num_bytes") > 2000
    assert metrics == {
        "current_step": 6,
        "num_rows": 27,
        "partition_count": 1,
        "steps_completed": 6,
        "rows_processed": 81,
        "checkpoints_created": 3,
        "replay_fingerprints": 0,
    }


def test_best_one_by_a_metric_stays(tmp_path: Path) -> None:
    """The metric is the one that was logged last."""
    store = StoreConfig(max_retained=1, monitor="loss", durability="flush")
    saver = saver_of(tmp_path, store=store)
    fit_drawing(saver)
    assert saver.best_model_path in {str(tmp_path / name) for name in names_in(tmp_path)}
    assert len(names_in(tmp_path)) <= 2


def test_checkpoints_of_later_steps_are_put_into_the_archive(tmp_path: Path) -> None:
    """A run that goes back writes these steps anew."""
    fit_drawing(saver_of(tmp_path, every=5), max_epochs=2)
    fit_drawing(saver_of(tmp_path, every=None), resume=tmp_path / "step-00000005")
    assert names_in(tmp_path) == ["step-00000005"]
    assert [path.name for path in tmp_path.glob("archive/*/*")] == ["step-00000010"]


def test_clock_makes_a_checkpoint_due(tmp_path: Path) -> None:
    """At the first step at which so much time has passed since the last one."""
    policy = CheckpointPolicy(every_steps=None, every_s=1e-9)
    fit_drawing(PartitionCheckpoint(tmp_path / "often", policy=policy), max_epochs=1)
    policy = CheckpointPolicy(every_steps=None, every_s=3600.0)
    fit_drawing(PartitionCheckpoint(tmp_path / "seldom", policy=policy), max_epochs=1)
    assert len(names_in(tmp_path / "often")) == 4
    assert names_in(tmp_path / "seldom") == []


class Alternating(Drawing):
    """Has an optimizer for each of two layers, and steps them in turn by hand."""

    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        loss = super().training_step(batch, batch_idx)
        optimizer = self.optimizers()[batch_idx % 2]
        optimizer.zero_grad()
        self.manual_backward(loss)
        optimizer.step()
        return loss

    def configure_optimizers(self) -> Any:
        first, second = self.layers[0].parameters(), self.layers[3].parameters()
        return [torch.optim.AdamW(first, lr=0.01), torch.optim.SGD(second, lr=0.01, momentum=0.9)]


def test_several_optimizers_are_resumed_to_the_last_bit(tmp_path: Path) -> None:
    """Each has a file of its own, and both digests count."""
    whole = fit_drawing(saver_of(tmp_path / "a"), model=Alternating())
    other = saver_of(tmp_path / "b", every=None)
    path = tmp_path / "a" / "step-00000009"
    resumed = fit_drawing(other, model=Alternating(), resume=path)
    assert ends_equal(whole, resumed)
    images = [(path / f"optimizer-{i}.safetensors").read_bytes() for i in (0, 1)]
    joined = "\n".join(hashlib.sha256(image).hexdigest() for image in images)
    saver = PartitionCheckpoint(tmp_path / "a")
    assert saver.optimizer_state_sha(9) == hashlib.sha256(joined.encode()).hexdigest()


def test_second_fit_goes_on_and_saves(tmp_path: Path) -> None:
    """With the same Trainer and the same callback, one epoch after the other."""
    saver = saver_of(tmp_path, every=4)
    trainer, model = fit_drawing(saver, max_epochs=1)
    trainer.fit_loop.max_epochs = 2
    trainer.fit(model, make_loader(24))
    assert names_in(tmp_path) == [f"step-{step:08d}" for step in (4, 8, 12)]
    assert saver.latest == tmp_path / "step-00000012"


def test_command_line_makes_the_callback(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From a file, with its options nested; the run saves where it says."""
    config = {
        "trainer": {
            "accelerator": "cpu",
            "devices": 1,
            "max_epochs": 1,
            "logger": False,
            "enable_progress_bar": False,
            "enable_model_summary": False,
            "callbacks": [
                {
                    "class_path": "lightning_elche.PartitionCheckpoint",
                    "init_args": {
                        "dirpath": str(tmp_path / "ckpt"),
                        "policy": {"every_steps": 4},
                        "replay": {"mode": "record"},
                        "replicas": {"check_every": 2},
                    },
                }
            ],
        }
    }
    path = tmp_path / "config.json"
    path.write_text(json.dumps(config))
    monkeypatch.setenv("JSONARGPARSE_DEPRECATION_WARNINGS", "off")  # what Lightning calls
    monkeypatch.setattr("sys.argv", ["train", "--config", str(path)])
    cli = LightningCLI(Drawing, run=False, save_config_callback=None, seed_everything_default=7)
    cli.trainer.fit(cli.model, make_loader(24))
    assert names_in(tmp_path / "ckpt") == ["step-00000004"]


def test_other_environment_is_told_once_on_a_verified_resume(tmp_path: Path) -> None:
    """Not again for the checkpoint, whose report has it."""
    first = saver_of(tmp_path, every=4, replay=ReplayConfig(mode="record"))
    fit_drawing(first, max_epochs=1)
    record = tmp_path / "replay" / "segment-0000.jsonl"
    for path in (tmp_path / "replay").iterdir():
        path.write_text(path.read_text().replace('"lightning": "', '"lightning": "0.'))
    replay = ReplayConfig(mode="verify", expected=str(record))
    second = saver_of(tmp_path, every=None, replay=replay)
    with pytest.warns(UserWarning, match="is not that of the record") as caught:
        fit_drawing(second, resume=tmp_path / "step-00000004", max_epochs=1)
    assert sum("environment" in str(one.message) for one in caught) == 1


def test_replay_is_recorded_and_verified(tmp_path: Path) -> None:
    """The same run has the same fingerprints, one for each step."""
    first = saver_of(tmp_path / "a", every=None, replay=ReplayConfig(mode="record"))
    fit_drawing(first, max_epochs=1)
    config = ReplayConfig(mode="verify", expected=str(tmp_path / "a"))
    second = saver_of(tmp_path / "b", every=None, replay=config)
    fit_drawing(second, max_epochs=1)
    assert len(first.recorded_replay) == 6
    assert first.recorded_replay == second.recorded_replay


def test_lightning_s_own_checkpoints_are_saved_beside(tmp_path: Path) -> None:
    """Paths that are not ours go to the plugin that was there."""
    other = ModelCheckpoint(tmp_path / "theirs", every_n_train_steps=3, filename="{step}")
    fit_drawing(saver_of(tmp_path / "ours", every=4), more=[other], max_epochs=1)
    assert torch.load(tmp_path / "theirs" / "step=6.ckpt", weights_only=False)["global_step"] == 6
    assert names_in(tmp_path / "ours") == ["step-00000004"]


def test_nothing_is_saved_in_a_fast_dev_run(tmp_path: Path) -> None:
    """Nor is anything moved away."""
    fit_drawing(saver_of(tmp_path), fast_dev_run=True)
    assert list(tmp_path.iterdir()) == []
