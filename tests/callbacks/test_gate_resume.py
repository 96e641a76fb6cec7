"""A run under a contract that goes on, and checkpoints that cannot be written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from lightning.pytorch.callbacks import ModelCheckpoint

from tests.callbacks.gated import fit_gated, lines_of, lines_of_metadata, run_of, violation_of_fit


def test_second_run_does_not_mix_with_the_first(tmp_path: Path) -> None:
    """It is told where that lies."""
    fit_gated(tmp_path)
    with pytest.raises(ValueError, match="`run_dir` must be a folder without a run"):
        fit_gated(tmp_path)


def test_resumed_run_goes_on_in_its_folder(tmp_path: Path) -> None:
    """Step numbers and epochs follow, and the attempt is told."""
    fit_gated(tmp_path, max_epochs=2)
    fit_gated(tmp_path, max_epochs=4, ckpt_path=str(tmp_path / "ckpt/epoch-001.ckpt"))
    lines, run = lines_of(tmp_path / "train.jsonl"), run_of(tmp_path)
    assert [line["step"] for line in lines] == list(range(40))
    assert (run["attempt"], run["epochs_completed"], run["tokens_seen"]) == (1, 4, 160)
    assert [line["attempt"] for line in lines[19:21]] == [0, 1]


@pytest.mark.filterwarnings("ignore:Checkpoint directory")
def test_checkpoint_of_another_callback_can_be_resumed(tmp_path: Path) -> None:
    """It may be saved as soon as the validation is over."""
    saver = ModelCheckpoint(tmp_path / "other", save_top_k=-1, save_on_train_epoch_end=False)
    options: dict[str, Any] = {"callbacks": [saver], "enable_checkpointing": True}
    fit_gated(tmp_path / "run", max_epochs=2, **options)
    (first,) = (tmp_path / "other").glob("epoch=0*.ckpt")
    fit_gated(tmp_path / "run", max_epochs=3, ckpt_path=str(first), **options)
    lines, run = lines_of(tmp_path / "run/train.jsonl"), run_of(tmp_path / "run")
    assert [line["step"] for line in lines] == [*range(20), *range(10, 30)]
    assert (run["epochs_completed"], len(lines_of_metadata(tmp_path / "run"))) == (3, 3)


def test_epoch_that_is_trained_again_moves_the_old_one(tmp_path: Path) -> None:
    """Nothing is deleted."""
    fit_gated(tmp_path, max_epochs=2)
    fit_gated(tmp_path, max_epochs=2, ckpt_path=str(tmp_path / "ckpt/epoch-000.ckpt"))
    old = tmp_path / "ckpt/superseded/attempt-1"
    assert sorted(file.name for file in old.iterdir()) == [
        "epoch-001.ckpt",
        "epoch-001.metadata.json",
    ]


def test_checkpoint_off_leaves_no_artifacts(tmp_path: Path) -> None:
    """The checker will say so."""
    fit_gated(tmp_path, gate={"checkpoint": "off"})
    assert not (tmp_path / "ckpt").exists()


def test_checkpoint_that_cannot_be_written_fails_the_run_at_its_end(tmp_path: Path) -> None:
    """Training goes on to it."""
    tmp_path.joinpath("ckpt").write_text("a file where the folder should be")
    with pytest.warns(UserWarning, match="artifact of epoch"):
        err = violation_of_fit(tmp_path, max_epochs=2)
    assert (err.exit_code, run_of(tmp_path)["epochs_completed"]) == (22, 2)
    events = [event["event"] for event in lines_of(tmp_path / "events.jsonl")]
    assert events.count("CKPT_FAILED") == 2


def test_checkpoint_that_cannot_be_written_may_stop_the_run(tmp_path: Path) -> None:
    """At its epoch."""
    tmp_path.joinpath("ckpt").write_text("a file where the folder should be")
    with pytest.warns(UserWarning, match="artifact of epoch 0"):
        err = violation_of_fit(tmp_path, gate={"on_write_error": "raise"}, max_epochs=2)
    assert (err.exit_code, run_of(tmp_path)["epochs_completed"]) == (22, 0)
