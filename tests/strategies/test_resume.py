"""Continuing from a checkpoint: with exactly what is left, on any number of ranks."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, seed_everything
from lightning.pytorch.callbacks import ModelCheckpoint

from lightning_elche import ChunkConfig, ElCheStrategy, OuterOptimizer
from lightning_elche.testing import run_ranks
from tests.ranks import Recorder, fit, make_loader, make_trainer, weights

pytestmark = pytest.mark.slow

SIZE = 400  # samples; 100 batches
OPTIONS: dict[str, dict[str, Any]] = {
    "cadence": {},
    "async": {"policy": "async"},
    "cpu": {"backend": "cpu"},
    "fixed parts": {"chunks": {"progressive": False}},
    "outer": {"outer_optimizer": {"lr": 0.9, "momentum": 0.5}},
}


class Scheduled(Recorder):
    """Notes the samples seen when a checkpoint is saved, and the learning rate of each step."""

    def __init__(self) -> None:
        super().__init__((1.0, 4.0, 2.0))
        self.saved: dict[int, dict[int, list[int]]] = {}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        seen = {epoch: list(ids) for epoch, ids in self.ids.items()}
        self.saved[checkpoint["global_step"]] = seen

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.AdamW(self.parameters(), lr=0.01)
        schedule = torch.optim.lr_scheduler.StepLR(optimizer, step_size=1, gamma=0.99)
        by_epoch = torch.optim.lr_scheduler.StepLR(optimizer, step_size=1, gamma=0.5)
        return [optimizer], [{"scheduler": schedule, "interval": "step"}, by_epoch]


def strategy_of(options: dict[str, Any]) -> ElCheStrategy:
    options = dict(options)
    if "chunks" in options:
        options["chunks"] = ChunkConfig(**options["chunks"])
    if "outer_optimizer" in options:
        options["outer_optimizer"] = OuterOptimizer(**options["outer_optimizer"])
    return ElCheStrategy(timeout_s=30.0, **options)


def train(
    folder: str,
    options: dict[str, Any],
    ckpt_path: str | None = None,
    every: int | None = 30,
    **more: Any,
) -> dict[str, Any]:
    saver = ModelCheckpoint(folder, every_n_train_steps=every, save_top_k=-1, filename="{step}")
    world_size = int(os.environ["WORLD_SIZE"])
    model = Scheduled()
    trainer = make_trainer(
        world_size,
        max_epochs=2,
        enable_checkpointing=True,
        callbacks=[saver],
        **{"strategy": strategy_of(options), **more},
    )
    seed_everything(7, verbose=False)
    trainer.fit(model, make_loader(SIZE), ckpt_path=ckpt_path)
    return {
        "ids": model.ids,
        "saved": model.saved,
        "step": trainer.global_step,
        "rate": trainer.optimizers[0].param_groups[0]["lr"],
        "weights": weights(model),
    }


def run(world_size: int, **kwargs: Any) -> list[dict[str, Any]]:
    return [rank.value for rank in run_ranks(train, world_size=world_size, **kwargs)]


def checkpoints_in(folder: Path) -> list[tuple[int, Path]]:
    files = [(int(file.stem.split("=")[1]), file) for file in folder.glob("step=*.ckpt")]
    return sorted(files)


def seen_by(ranks: list[dict[str, Any]], step: int) -> dict[int, list[int]]:
    """Return the samples of each epoch that all ranks had seen when the checkpoint was saved."""
    seen: dict[int, list[int]] = {0: [], 1: []}
    for rank in ranks:
        for epoch, ids in rank["saved"][step].items():
            seen[epoch] += ids
    return seen


@pytest.mark.parametrize("name", OPTIONS)
def test_resumed_run_trains_exactly_what_is_left(name: str, tmp_path: Path) -> None:
    """Within each of two epochs: every sample once, before or after, and one schedule."""
    first = run(2, folder=str(tmp_path), options=OPTIONS[name])
    checkpoints = checkpoints_in(tmp_path)
    assert len(checkpoints) >= 3
    for step, file in (checkpoints[0], checkpoints[-1]):
        second = run(2, folder=str(tmp_path / "second"), options=OPTIONS[name], ckpt_path=str(file))
        _check_union(first, second, step)
        assert torch.equal(*(rank["weights"]["layers.0.weight"] for rank in second))


def train_with_a_fast_first_rank(**options: Any) -> dict[str, Any]:
    os.environ.pop("ELCHE_DELAYS_SEED", None)
    return train(**options)


def test_checkpoint_of_a_rank_without_data_goes_on_with_the_others_rest(tmp_path: Path) -> None:
    """Rank 0, which saves, has trained its part of the epoch when rank 1 has not."""
    options = OPTIONS["fixed parts"]
    ranks = run_ranks(
        train_with_a_fast_first_rank, world_size=2, folder=str(tmp_path), options=options
    )
    first = [rank.value for rank in ranks]
    step, file = next(saved for saved in reversed(checkpoints_in(tmp_path)) if saved[0] < 100)
    assert len(first[0]["saved"][step][0]) == SIZE / 2
    second = run(2, folder=str(tmp_path / "second"), options=options, ckpt_path=str(file))
    _check_union(first, second, step)


@pytest.mark.parametrize("world_size", [1, 2])
@pytest.mark.parametrize("every", [30, None])
def test_run_that_max_steps_ended_goes_on_within_the_epoch(
    every: int | None, world_size: int, tmp_path: Path
) -> None:
    """Whether it was saved at its last step or when Lightning ended the epoch."""
    options: dict[str, Any] = {"options": {}, "every": every}
    first = run(2, folder=str(tmp_path), max_steps=60, **options)
    step, file = checkpoints_in(tmp_path)[-1]
    assert step == 60
    second = run(world_size, folder=str(tmp_path / "second"), ckpt_path=str(file), **options)
    _check_union(first, second, step)


def _check_union(first: list[dict[str, Any]], second: list[dict[str, Any]], step: int) -> None:
    everything = Counter(sample for ids in seen_by(first, step).values() for sample in ids)
    for rank in second:
        everything.update(sample for ids in rank["ids"].values() for sample in ids)
    assert everything == Counter(2 * list(range(SIZE)))
    assert {rank["step"] for rank in second} == {200}
    for rank in second:
        assert rank["rate"] == pytest.approx(0.01 * 0.99**200 * 0.5**2)


class Begins(Callback):
    """Stops before the first step, and keeps the state until then."""

    def on_train_start(self, trainer: Any, *_: Any) -> None:
        strategy, (optimizer,) = trainer.strategy, trainer.optimizers
        self.rounds = strategy.run.rounds.state_dict()
        self.optimizer = optimizer.state_dict()
        trainer.fit_loop.max_epochs = 0


def begin(ckpt_path: str) -> tuple[Any, Any]:
    seed_everything(7, verbose=False)
    begins, world_size = Begins(), int(os.environ["WORLD_SIZE"])
    strategy = strategy_of(OPTIONS["outer"])
    trainer = make_trainer(world_size, max_epochs=2, callbacks=[begins], strategy=strategy)
    trainer.fit(Scheduled(), make_loader(SIZE), ckpt_path=ckpt_path)
    return begins.rounds, begins.optimizer


@pytest.mark.parametrize("world_size", [2, 3])
def test_everything_agreed_is_as_it_was(world_size: int, tmp_path: Path) -> None:
    """Counters, guard, outer momentum and optimizer; speeds where the ranks are as many."""
    run(2, folder=str(tmp_path), options=OPTIONS["outer"])
    _, file = checkpoints_in(tmp_path)[-1]
    saved = torch.load(file, weights_only=True)
    expected = saved["loops"]["fit_loop"]["epoch_loop.state_dict"]["elche"]["rounds"]
    assert expected["controller"]["cadence"]["is_calibrated"]
    assert expected["averager"]["momentum"]
    if world_size == 3:
        del expected["controller"]["cadence"]
    ranks = run_ranks(begin, world_size=world_size, ckpt_path=str(file))
    for rounds, optimizer in (rank.value for rank in ranks):
        torch.testing.assert_close(_part(rounds, like=expected), expected, rtol=0, atol=0)
        torch.testing.assert_close(
            optimizer["state"], saved["optimizer_states"][0]["state"], rtol=0, atol=0
        )


def _part(state: Any, *, like: Any) -> Any:
    """Return of nested mappings what is in `like`, too."""
    if not isinstance(like, dict):
        return state
    return {key: _part(state[key], like=value) for key, value in like.items()}


@pytest.mark.parametrize(("before", "after"), [(2, 3), (3, 2), (2, 1)])
def test_number_of_ranks_may_change(before: int, after: int, tmp_path: Path) -> None:
    """What is left is dealt to as many ranks as there are now."""
    first = run(before, folder=str(tmp_path), options={})
    step, file = checkpoints_in(tmp_path)[1]
    second = run(after, folder=str(tmp_path / "second"), options={}, ckpt_path=str(file))
    _check_union(first, second, step)


def other_data(ckpt_path: str) -> None:
    model = Scheduled()
    trainer = make_trainer(2, max_epochs=2)
    trainer.fit(model, make_loader(SIZE, batch_size=2), ckpt_path=ckpt_path)


def test_other_batches_within_the_epoch_are_refused(tmp_path: Path) -> None:
    """Nobody knows which of them were trained; the message says what to do."""
    run(2, folder=str(tmp_path), options={})
    _, file = checkpoints_in(tmp_path)[0]
    ranks = run_ranks(other_data, world_size=2, check=False, ckpt_path=str(file))
    assert all(rank.returncode for rank in ranks)
    assert "ValueError: `ckpt_path` was saved within epoch 0, but the sampler" in ranks[0].output
    assert "RuntimeError: Please call `iter" not in ranks[0].output


@pytest.mark.parametrize("which", [0, -1])
def test_checkpoint_of_ddp_loads(which: int, tmp_path: Path) -> None:
    """Its step count goes on; an epoch that it was saved within starts over, and says so."""
    run(2, folder=str(tmp_path), options={}, strategy="ddp")
    step, file = checkpoints_in(tmp_path)[which]
    ranks = run_ranks(
        train, world_size=2, folder=str(tmp_path / "second"), options={}, ckpt_path=str(file)
    )
    epoch = step // 50
    seen = Counter(sample for rank in ranks for ids in rank.value["ids"].values() for sample in ids)
    assert seen == Counter((2 - epoch) * list(range(SIZE)))
    assert {rank.value["step"] for rank in ranks} == {step + (2 - epoch) * 100}
    assert "the epoch starts over" in ranks[0].output


def test_checkpoint_loads_in_ddp(tmp_path: Path) -> None:
    """DDP continues the step count, with the parameters, optimizer and schedule as saved."""
    run(2, folder=str(tmp_path), options={})
    for step, file in checkpoints_in(tmp_path):
        ranks = run(
            2, folder=str(tmp_path / "ddp"), options={}, ckpt_path=str(file), strategy="ddp"
        )
        left = {100: 50, 200: 0}.get(step, 50 - step % 100 // 2 + (50 if step < 100 else 0))
        assert {rank["step"] for rank in ranks} == {step + left}


@pytest.mark.parametrize(
    ("world_size", "strategy", "step"), [(2, "elche", 200), (1, "elche", 200), (2, "ddp", 150)]
)
def test_checkpoint_after_the_last_batch_of_an_epoch_loads(
    world_size: int, strategy: str, step: int, tmp_path: Path
) -> None:
    """The next epoch follows, and not one batch more of this one."""
    run(2, folder=str(tmp_path), options={}, every=100)
    files = dict(checkpoints_in(tmp_path))
    assert list(files) == [100, 200]
    again = {"folder": str(tmp_path / "second"), "options": {}, "strategy": strategy}
    for saved, ends_at in ((100, step), (200, 200)):
        ranks = run(world_size, ckpt_path=str(files[saved]), **again)
        assert {rank["step"] for rank in ranks} == {ends_at}
        seen = Counter(sample for rank in ranks for sample in rank["ids"].get(1, []))
        assert seen == Counter(range(SIZE) if saved == 100 else ())


def save_after_fit(folder: str) -> int:
    trainer, _ = fit(2)
    trainer.save_checkpoint(Path(folder) / "after.ckpt")
    return trainer.global_step


def test_checkpoint_can_be_saved_after_the_end(tmp_path: Path) -> None:
    """By `trainer.save_checkpoint`, as in any Lightning script."""
    run_ranks(save_after_fit, world_size=2, folder=str(tmp_path))
    saved = torch.load(tmp_path / "after.ckpt", weights_only=True)
    assert saved["global_step"] == 50
    state = saved["loops"]["fit_loop"]["epoch_loop.state_dict"]["elche"]
    assert state["rounds"]["global_step"] == 50
