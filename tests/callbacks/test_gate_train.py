"""A training contract on one device: what is stopped, and what is left behind."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from lightning.pytorch.plugins import MixedPrecision
from lightning.pytorch.strategies import FSDPStrategy
from torch.utils.data import DataLoader, IterableDataset

from lightning_elche import GateTrain
from lightning_elche.callbacks.gate_options import refuse_sharded
from lightning_elche.contracts.model import Contract
from lightning_elche.data import Cycle
from lightning_elche.exceptions import ContractError
from lightning_elche.ops.state_digest import recompute_optimizer_state_sha
from tests.callbacks.gated import Scripted, fit_gated, lines_of, run_of, violation_of_fit
from tests.ranks import Numbered, TwoOptimizers, make_trainer


def test_run_that_keeps_its_contract_leaves_its_evidence(tmp_path: Path) -> None:
    """A line per step, a checkpoint and metadata per epoch, a record of the run."""
    fit_gated(tmp_path, max_epochs=2)
    run = run_of(tmp_path)
    assert (run["status"], run["stop_reason"], run["exit_code"]) == ("OK", "max_epochs", 0)
    assert [line["step"] for line in lines_of(tmp_path / "train.jsonl")] == list(range(20))
    assert sorted(file.name for file in (tmp_path / "ckpt").iterdir()) == [
        "epoch-000.ckpt",
        "epoch-000.metadata.json",
        "epoch-001.ckpt",
        "epoch-001.metadata.json",
    ]


def test_metadata_say_what_the_log_says(tmp_path: Path) -> None:
    """Means, maxima and counts can be found again in the step log."""
    fit_gated(tmp_path, max_epochs=1)
    lines = lines_of(tmp_path / "train.jsonl")
    (epoch,) = lines_of_metadata(tmp_path)
    losses = [line["train_loss"] for line in lines]
    assert epoch["train_loss"] == pytest.approx(math.fsum(losses) / len(losses), rel=1e-6)
    assert epoch["grad_norm_max"] == max(line["grad_norm"] for line in lines)
    assert (epoch["tokens_seen"], epoch["val_loss"]) == (40, 3.0)


def contract_without(*gates: str) -> Contract:
    default = Contract.default()
    return replace(default, gates=tuple(gate for gate in default.gates if gate.id not in gates))


def test_gate_that_is_not_declared_stops_nothing(tmp_path: Path) -> None:
    """Without 001 a run may lack its validation loss, and then has no artifacts."""
    contract = contract_without("GATE-TRAIN-001")
    fit_gated(tmp_path, gate={"contract": contract, "val_loss": "valid_loss"})
    assert (run_of(tmp_path)["epochs_completed"], (tmp_path / "ckpt").exists()) == (0, False)


def test_step_that_json_cannot_hold_is_not_logged(tmp_path: Path) -> None:
    """Without 007 training goes on with numbers that are not finite."""
    contract = contract_without("GATE-TRAIN-005", "GATE-TRAIN-007")
    fit_gated(tmp_path, model=Scripted(nan_at=8), gate={"contract": contract})
    steps = [line["step"] for line in lines_of(tmp_path / "train.jsonl")]
    assert (steps, run_of(tmp_path)["steps"]) == (list(range(8)), 10)


def lines_of_metadata(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(file.read_text()) for file in sorted(folder.glob("ckpt/*.metadata.json"))]


def test_digest_is_that_of_the_checkpoint(tmp_path: Path) -> None:
    """Whoever has the file can recompute it."""
    fit_gated(tmp_path, max_epochs=1)
    (epoch,) = lines_of_metadata(tmp_path)
    found = recompute_optimizer_state_sha(tmp_path / "ckpt/epoch-000.ckpt", "elche-state-v1")
    assert epoch["optimizer_state_sha"] == found
    assert epoch["optimizer_state_algo"] == "elche-state-v1"


def test_speed_and_time_of_a_step_belong_together(tmp_path: Path) -> None:
    """Their product is the number of tokens."""
    fit_gated(tmp_path)
    for line in lines_of(tmp_path / "train.jsonl"):
        assert line["tokens_per_sec"] * line["wall_ms"] / 1000.0 == pytest.approx(4.0, rel=1e-5)


@pytest.mark.parametrize("sync", ["immediate", "deferred"])
def test_loss_that_is_not_finite_aborts(sync: str, tmp_path: Path) -> None:
    """The step is named, and its record is not written."""
    err = violation_of_fit(tmp_path, model=Scripted(nan_at=3), gate={"sync": sync})
    assert str(err).startswith("NUMERICAL_INSTABILITY at step 3: train_loss = nan")
    assert (err.exit_code, err.violation.gate) == (27, "GATE-TRAIN-007")
    assert len(lines_of(tmp_path / "train.jsonl")) == 3
    assert run_of(tmp_path)["status"] == "ABORTED"


def test_rank_alone_stops_before_the_step_is_made(tmp_path: Path) -> None:
    """Its parameters are as before."""
    model = Scripted(nan_at=3)
    violation_of_fit(tmp_path, model=model)
    assert all(parameter.isfinite().all() for parameter in model.parameters())


def test_abort_is_told_by_its_event(tmp_path: Path) -> None:
    """The log is clean, so that this is the evidence."""
    violation_of_fit(tmp_path, model=Scripted(nan_at=3))
    names = [line["event"] for line in lines_of(tmp_path / "events.jsonl")]
    assert names == ["RUN_START", "ABORT", "RUN_END"]


@pytest.mark.parametrize(
    ("losses", "options", "message"),
    [
        ((31.99,), {}, "DIVERGENCE at epoch 0: val_loss 31.99 > 10 (finetune cap)"),
        ((3.5, 7.1), {}, "DIVERGENCE at epoch 1: val_loss 7.1 > 2.0 x 3.5 (ratio 2.029)"),
        ((25.0,), {"mode": "from_scratch", "vocab_size": 50257}, "DIVERGENCE at epoch 0: val_loss"),
        ((3.0, math.nan), {}, "NUMERICAL_INSTABILITY at epoch 1: val_loss = nan"),
    ],
)
def test_validation_loss_aborts_before_anything_is_saved(
    losses: tuple[float, ...], options: dict[str, Any], message: str, tmp_path: Path
) -> None:
    """Neither here nor by a ModelCheckpoint beside us."""
    saver = ModelCheckpoint(tmp_path / "other", save_top_k=-1, every_n_epochs=1)
    err = violation_of_fit(
        tmp_path / "run",
        model=Scripted(losses),
        gate=options,
        callbacks=[saver],
        enable_checkpointing=True,
        max_epochs=4,
    )
    assert str(err).startswith(message)
    assert len(list((tmp_path / "run").glob("ckpt/*.ckpt"))) == len(losses) - 1
    assert len(list((tmp_path / "other").glob("*.ckpt"))) == len(losses) - 1


def test_loss_of_twice_the_last_one_goes_on(tmp_path: Path) -> None:
    """And 18 in the first epoch, if the model knows nothing yet."""
    gate = {"mode": "from_scratch", "vocab_size": 50257}
    trainer, _ = fit_gated(tmp_path, model=Scripted((18.0, 36.0)), gate=gate, max_epochs=2)
    assert trainer.current_epoch == 2


def test_absent_validation_loss_aborts(tmp_path: Path) -> None:
    """Its name may be misspelt."""
    err = violation_of_fit(tmp_path, gate={"val_loss": "valid_loss"})
    assert str(err).startswith("METRIC_MISSING at epoch 0: val_loss is absent")
    assert err.exit_code == 21


@pytest.mark.parametrize(
    ("losses", "status", "reason", "epochs"),
    [
        ((3.0, 3.1, 3.1, 3.1, 2.9), "EARLY_STOP", "patience", 4),
        ((3.0, 3.1, 2.9, 3.0, 3.0, 3.0, 1.0), "EARLY_STOP", "patience", 6),
        ((3.0, 2.9, 2.0, 1.9), "OK", "target", 3),
        ((2.0, 1.9, 1.8, 1.7), "OK", "target", 3),
    ],
    ids=["third miss", "after a best", "target", "not before the third epoch"],
)
def test_contract_ends_a_run(
    losses: tuple[float, ...], status: str, reason: str, epochs: int, tmp_path: Path
) -> None:
    """By patience or target, and the exit code is 0."""
    fit_gated(tmp_path, model=Scripted(losses), max_epochs=10)
    run = run_of(tmp_path)
    assert (run["status"], run["stop_reason"], run["exit_code"]) == (status, reason, 0)
    assert run["epochs_completed"] == epochs


def test_other_callback_may_stop_earlier(tmp_path: Path) -> None:
    """Lightning's own stops at the second miss."""
    stopping = EarlyStopping("val_loss", patience=2)
    model = Scripted((3.0, 3.1, 3.1, 3.1))
    fit_gated(tmp_path, model=model, callbacks=[stopping], max_epochs=10)
    run = run_of(tmp_path)
    assert (run["status"], run["stop_reason"], run["epochs_completed"]) == ("OK", "external", 3)


def test_run_that_is_interrupted_has_no_verdict(tmp_path: Path) -> None:
    """It may be resumed."""

    class Breaks(Scripted):
        def on_train_epoch_start(self) -> None:
            if self.current_epoch == 1:
                raise ArithmeticError("no fault of the contract's")

    with pytest.raises(ArithmeticError):
        fit_gated(tmp_path, model=Breaks(), max_epochs=3)
    run = run_of(tmp_path)
    assert (run["status"], run["exit_code"], run["epochs_completed"]) == ("INTERRUPTED", None, 1)


def test_max_steps_end_a_run_within_an_epoch(tmp_path: Path) -> None:
    """The epoch that is begun has no artifacts."""
    fit_gated(tmp_path, max_steps=15, max_epochs=-1)
    run = run_of(tmp_path)
    assert (run["stop_reason"], run["steps"], run["epochs_completed"]) == ("max_steps", 15, 1)


def test_last_validation_of_an_epoch_counts(tmp_path: Path) -> None:
    """Where there are several, and none at its end."""
    fit_gated(tmp_path, val_check_interval=0.3, max_epochs=2)
    assert [epoch["val_loss"] for epoch in lines_of_metadata(tmp_path)] == [3.0, 2.875]


def seeded(**options: Any) -> Scripted:
    torch.manual_seed(3)
    return Scripted(**options)


def test_accumulated_batches_are_one_step(tmp_path: Path) -> None:
    """Ten batches make steps of four, four and two, with the mean loss of each."""
    fit_gated(tmp_path / "a", accumulate_grad_batches=4, model=seeded(lr=0.0))
    fit_gated(tmp_path / "b", model=seeded(lr=0.0))
    losses = [line["train_loss"] for line in lines_of(tmp_path / "b/train.jsonl")]
    steps = lines_of(tmp_path / "a/train.jsonl")
    expected = [sum(part) / len(part) for part in (losses[:4], losses[4:8], losses[8:])]
    assert [step["train_loss"] for step in steps] == pytest.approx(expected, rel=1e-5)
    tokens = [round(step["tokens_per_sec"] * step["wall_ms"] / 1000.0) for step in steps]
    assert tokens == [16, 16, 8]


def test_several_optimizers_of_a_batch_are_one_step(tmp_path: Path) -> None:
    """With the norm of all gradients."""
    model = TwoOptimizers((0.0,))
    fit_gated(tmp_path, model=model, gate={"overrides": {"lr_max": 0.01}})
    assert len(lines_of(tmp_path / "train.jsonl")) == 10


class Counting(Scripted):
    """Notes how many steps are in the log when each batch begins."""

    def __init__(self, log: Path) -> None:
        super().__init__()
        self.log_path = log
        self.logged: list[int] = []

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        self.logged.append(self.log_path.read_bytes().count(b"\n"))


def test_killed_process_loses_at_most_a_portion(tmp_path: Path) -> None:
    """What is not in the file yet is less than `flush_every` steps."""
    model = Counting(tmp_path / "train.jsonl")
    fit_gated(tmp_path, model=model, gate={"flush_every": 4, "flush_ms": 1e9})
    assert model.logged == [0, 0, 0, 0, 4, 4, 4, 4, 8, 8]


class Scheduled(Scripted):
    """Halves its learning rate after every step."""

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.SGD(self.parameters(), lr=2.0**-15)
        schedule = torch.optim.lr_scheduler.StepLR(optimizer, step_size=1, gamma=0.5)
        return [optimizer], [{"scheduler": schedule, "interval": "step"}]


def test_learning_rate_is_the_one_that_the_step_has_used(tmp_path: Path) -> None:
    """Not that of the next one, which the schedule has set by its end."""
    fit_gated(tmp_path, model=Scheduled(), size=12)
    rates = [line["lr"] for line in lines_of(tmp_path / "train.jsonl")]
    assert rates == pytest.approx([2.0**-15, 2.0**-16, 2.0**-17])


def test_clipping_here_is_that_of_lightning(tmp_path: Path) -> None:
    """To the last bit, and the norm in the log is that before it."""
    _, here = fit_gated(tmp_path / "a", model=seeded(lr=0.1), gate={"clip_norm": 0.5})
    _, there = fit_gated(tmp_path / "b", model=seeded(lr=0.1), gradient_clip_val=0.5)
    for own, other in zip(here.parameters(), there.parameters(), strict=True):
        assert torch.equal(own, other)
    assert max(line["grad_norm"] for line in lines_of(tmp_path / "a/train.jsonl")) > 0.5


class Overflows(Scripted):
    """The gradients of one step are too large for 16 bits."""

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        pass

    def on_after_backward(self) -> None:
        if self.global_step == 2 and not getattr(self, "has_overflown", False):
            self.has_overflown = True
            self.layers[0].weight.grad.fill_(math.inf)


def test_step_that_the_loss_scaler_skips_is_none(tmp_path: Path) -> None:
    """It leaves an event, and no gap in the log."""
    plugin = MixedPrecision("16-mixed", "cpu", scaler=torch.amp.GradScaler("cpu", init_scale=8.0))
    fit_gated(tmp_path, model=Overflows(), plugins=[plugin])
    lines, events = lines_of(tmp_path / "train.jsonl"), lines_of(tmp_path / "events.jsonl")
    assert [line["step"] for line in lines] == list(range(9))
    assert [event["step"] for event in events if event["event"] == "SCALER_SKIP"] == [2]


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


@pytest.mark.parametrize(
    ("gate", "trainer", "message"),
    [
        ({"mode": "from_scratch"}, {}, "`vocab_size` must be at least 2"),
        ({"mode": "scratch"}, {}, "`mode` must be one of"),
        ({"clip_norm": 0.0}, {}, "`clip_norm` must be positive"),
        ({"clip_norm": 1.0}, {"gradient_clip_val": 1.0}, "`clip_norm` must not be set together"),
        ({"flush_every": 0}, {}, "`flush_every` must be at least 1"),
        ({"overrides": {"lr": 1.0}}, {}, "`overrides`"),
        ({}, {"min_epochs": 4}, "must be at most 3"),
        ({}, {"check_val_every_n_epoch": 2}, "check_val_every_n_epoch=1"),
        ({}, {"limit_val_batches": 0}, "validation off"),
    ],
)
def test_option_that_cannot_work_is_refused(
    gate: dict[str, Any], trainer: dict[str, Any], message: str, tmp_path: Path
) -> None:
    """Before a step is made, by its name."""
    with pytest.raises(ValueError, match=message):
        fit_gated(tmp_path, gate=gate, **trainer)


def test_sharded_gradients_are_refused() -> None:
    """A rank does not know their norm."""
    with pytest.raises(ValueError, match=r"whole gradients.*got FSDPStrategy"):
        refuse_sharded(FSDPStrategy())


def test_contract_that_is_not_valid_is_refused(tmp_path: Path) -> None:
    """With the place in the file."""
    (tmp_path / "c.yaml").write_text("metadata: {version: 1.0}\n")
    with pytest.raises(ContractError, match="version"):
        GateTrain(tmp_path / "c.yaml")


def test_contract_may_be_a_file_or_an_object(tmp_path: Path) -> None:
    """The copy in the folder is the file, byte by byte."""
    contract = Contract.default()
    (tmp_path / "c.yaml").write_bytes(contract.text)
    fit_gated(tmp_path / "run", gate={"contract": tmp_path / "c.yaml"})
    assert (tmp_path / "run/contract.yaml").read_bytes() == contract.text


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
