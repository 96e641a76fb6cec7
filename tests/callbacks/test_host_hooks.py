"""A whole fit and its machine: what is timed, remembered and ended with it."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import ModelCheckpoint

from lightning_elche.callbacks.governor_hooks import HostHooks
from lightning_elche.callbacks.host_durations import fingerprint_of
from tests.callbacks.hosted import CPU, Events, Hosted
from tests.ranks import Recorder, fit, make_trainer


class FailsAtLast(Recorder):
    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        if batch_idx == 3:
            raise ArithmeticError("a spoiled batch")
        return super().training_step(batch, batch_idx)


def fit_hosted(folder: Path, hooks: HostHooks, **options: Any) -> Trainer:
    saver = ModelCheckpoint(dirpath=folder / "checkpoints", save_top_k=-1, every_n_epochs=1)
    trainer, _ = fit(
        1,
        size=20,
        val_size=4,
        callbacks=[Hosted(hooks), saver],
        enable_checkpointing=True,
        default_root_dir=folder,
        strategy="auto",
        **options,
    )
    return trainer


def durations(folder: Path) -> list[dict[str, object]]:
    lines = (folder / "elche" / "durations.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def test_fit_is_timed_and_its_checkpoints_are(tmp_path: Path, events: Events) -> None:
    """Without governor and deadline there is no hook of a batch that could cost anything."""
    hooks = HostHooks()
    fit_hosted(tmp_path, hooks, max_epochs=2)
    saved = [data for kind, data in events if kind == "checkpoint_saved"]
    sizes = [path.stat().st_size for path in sorted((tmp_path / "checkpoints").iterdir())]
    assert not hasattr(hooks, "on_train_batch_start")
    assert not hasattr(hooks, "on_train_batch_end")
    assert sorted(data["bytes"] for data in saved) == sorted(sizes)
    assert (hooks.checkpoint_times.count, len(sizes)) == (2, 2)
    (line,) = durations(tmp_path)
    assert (line["kind"], line["is_success"]) == ("train", True)
    assert json.loads(json.dumps(hooks.status()))["run"]["progress"] == 1.0


def test_deadline_counts_steps_where_nobody_averages(tmp_path: Path) -> None:
    """Stop comes before the end by one and a half checkpoints and steps, and the margin."""
    end = time.time() + 1000.0
    hooks = HostHooks(environment={"SLURM_JOB_END_TIME": str(int(end)), "SLURM_JOB_ID": "7"})
    due_s, reason = hooks.deadline()
    assert due_s is not None
    assert due_s - time.monotonic() == pytest.approx(1000.0 - 1.5 * 2.0 - 5.0, abs=2.0)
    assert reason == "the end of SLURM job 7"
    fit_hosted(tmp_path, hooks)
    later_s, _ = hooks.deadline()
    assert later_s is not None
    assert (hooks.window_times.count, hooks.checkpoint_times.count) == (5, 1)
    measured_s = hooks.checkpoint_times.p95 + hooks.window_times.p95
    assert later_s - due_s == pytest.approx(1.5 * (2.0 - measured_s), abs=0.5)


def test_fit_that_fails_is_no_success(tmp_path: Path) -> None:
    """It does not count when the next one is estimated; nothing goes on after it."""
    hooks = HostHooks(governor=CPU)
    with pytest.raises(ArithmeticError):
        fit_hosted(tmp_path, hooks, model=FailsAtLast())
    (line,) = durations(tmp_path)
    hooks.teardown()
    assert line["is_success"] is False
    assert not [
        one for one in threading.enumerate() if one.name in ("elche-host", "elche-governor")
    ]


def test_model_that_is_another_one_has_another_fingerprint() -> None:
    """As has one that trains for longer."""
    prints = [
        fingerprint_of(make_trainer(1, strategy="auto", max_epochs=epochs), model)
        for epochs, model in ((1, Recorder()), (2, Recorder()), (1, FailsAtLast()), (1, Recorder()))
    ]
    assert len(set(prints)) == 3
    assert prints[0] == prints[3]
