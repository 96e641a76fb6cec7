"""Fingerprints of a run, recorded and verified."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from lightning.pytorch import Trainer, seed_everything
from torch.utils.data import DataLoader

from lightning_elche import CadenceConfig, ElCheStrategy
from lightning_elche.partition.errors import (
    InvalidConfig,
    ReplayError,
    ReplayExhausted,
    ReplayIncomplete,
)
from lightning_elche.partition.fs import this_host
from lightning_elche.partition.image import HostTensor
from lightning_elche.partition.replay_file import read_segment
from lightning_elche.partition.replay_place import LocatedDivergence
from lightning_elche.partition.store import CheckpointStore
from lightning_elche.partition.store_snapshot import Snapshot
from lightning_elche.partition.tree import encode_tree
from lightning_elche.testing import run_ranks
from tests.callbacks.replayed import Adaptive, Replays, replay
from tests.ranks import Numbered, fit, make_loader, make_trainer


class Saves(Replays):
    """Saves the model after each of the last steps, too."""

    def on_train_batch_end(self, trainer: Trainer, *args: Any) -> None:
        super().on_train_batch_end(trainer, *args)
        state = trainer.lightning_module.state_dict()
        tensors = [HostTensor.of(name, value.numpy()) for name, value in state.items()]
        store = CheckpointStore(self.root, host=this_host())
        tree = encode_tree({}).data
        store.save(
            Snapshot(
                step=self.last_step, groups={"model": tensors}, tree=tree, segment="a", run_id="r"
            )
        )


def verifying(root: Path, **options: Any) -> Replays:
    return Replays(root, "verify", expected=str(root), **options)


def test_same_run_is_verified_at_every_step(tmp_path: Path) -> None:
    """Its fingerprints are the recorded ones, and are recorded once more."""
    then = replay(Replays(tmp_path))
    now = replay(verifying(tmp_path))
    assert [one.step for one in then.recorded] == [1, 2, 3, 4, 5, 6]
    assert now.recorded == then.recorded
    assert (then.segment, now.segment) == ("segment-0000", "segment-0001")


def test_divergence_names_step_and_tensor(tmp_path: Path) -> None:
    """One bit of one parameter is enough; the first step that has it is told."""
    replay(Replays(tmp_path))
    with pytest.raises(LocatedDivergence) as caught:
        replay(verifying(tmp_path), flips_at=2)
    error = caught.value
    assert (error.step, error.tensor, error.rows) == (3, "model/unused", None)


def test_divergence_names_rows_where_the_expected_run_has_a_checkpoint(tmp_path: Path) -> None:
    """It is compared with that of the same step."""
    replay(Saves(tmp_path))
    with pytest.raises(LocatedDivergence) as caught:
        replay(verifying(tmp_path), flips_at=2)
    error = caught.value
    assert (error.step, error.tensor, error.rows) == (3, "model/unused", (1, 2))


def test_warning_is_given_once_and_the_run_goes_on(tmp_path: Path) -> None:
    """All mismatches count."""
    replay(Replays(tmp_path))
    with pytest.warns(UserWarning, match="replay diverged at step 1") as caught:
        now = replay(verifying(tmp_path, on_divergence="warn"), lr=0.02)
    assert sum("replay diverged" in str(one.message) for one in caught) == 1
    assert (len(now.recorded), now.metrics()["replay/mismatches"]) == (6, 6.0)


def test_scope_model_leaves_optimizers_out(tmp_path: Path) -> None:
    """Its lanes are those of the model, which say nothing of the moments."""
    full = replay(Replays(tmp_path / "full"))
    model = replay(Replays(tmp_path / "model", scope="model"))
    assert [one.name.partition("/")[0] for one in full.take()][-1] == "optimizer-0"
    assert {one.name.partition("/")[0] for one in model.take()} == {"model"}


def test_record_of_another_scope_is_refused(tmp_path: Path) -> None:
    """Fingerprints of other things cannot be compared."""
    replay(Replays(tmp_path, scope="model"))
    with pytest.raises(InvalidConfig, match="`scope` must be that of the record, 'model', got"):
        replay(verifying(tmp_path))


def test_longer_run_is_not_in_the_record(tmp_path: Path) -> None:
    """It ends at the first step that is not there."""
    replay(Replays(tmp_path))
    with pytest.raises(ReplayExhausted, match="step 7"):
        replay(verifying(tmp_path), max_epochs=2)


def test_shorter_run_leaves_fingerprints(tmp_path: Path) -> None:
    """What it did is right, and it is told that it is not all."""
    replay(Replays(tmp_path))
    with pytest.raises(ReplayIncomplete, match="2 expected"):
        replay(verifying(tmp_path), max_steps=4)


def test_resumed_run_is_verified_from_its_step_on(tmp_path: Path) -> None:
    """The record is that of all its segments, each of which names the one before it."""
    replay(Replays(tmp_path))
    checkpoint = tmp_path / "half.ckpt"
    trainer, _ = fit(1, size=24, val_size=4, model=Adaptive(), strategy="auto")
    trainer.save_checkpoint(checkpoint)
    for options in ({"mode": "record"}, {"mode": "verify", "expected": str(tmp_path)}):
        resume(Replays(tmp_path, restored_step=6, **options), checkpoint)
    first, second, third = (
        read_segment((tmp_path / "replay" / f"segment-000{i}.jsonl").read_bytes()) for i in range(3)
    )
    assert [one.step for one in second.entries] == [7, 8, 9, 10, 11, 12]
    assert third.entries == second.entries
    assert (first.parent, second.parent) == (None, "segment-0000")


def resume(callback: Replays, checkpoint: Path) -> None:
    seed_everything(11, verbose=False)
    trainer = make_trainer(1, strategy="auto", max_epochs=2, callbacks=[callback])
    val = DataLoader(Numbered(4))
    trainer.fit(Adaptive(), make_loader(24), val, ckpt_path=str(checkpoint))


def test_other_environment_is_told_before_anything_else(tmp_path: Path) -> None:
    """A warning, or an error if that is wanted."""
    replay(Replays(tmp_path))
    for path in (tmp_path / "replay").iterdir():
        path.write_text(path.read_text().replace('"lightning": "', '"lightning": "0.'))
    with pytest.warns(UserWarning, match="of rank 0 is not that of the record.*lightning '0"):
        replay(verifying(tmp_path))
    path = tmp_path / "replay" / "segment-0000.jsonl"
    with pytest.raises(ReplayError, match="lightning '0"):
        replay(Replays(tmp_path, "verify", expected=str(path), on_env_mismatch="raise"))


def test_missing_record_is_named(tmp_path: Path) -> None:
    """It tells what it should be."""
    with pytest.raises(FileNotFoundError, match="`expected` must be a record of fingerprints"):
        replay(verifying(tmp_path))


def test_off_computes_and_writes_nothing(tmp_path: Path) -> None:
    """That is the default."""
    now = replay(Replays(tmp_path, "off"))
    assert (now.recorded, now.lines_since_parent(), list(tmp_path.iterdir())) == ((), b"", [])


class Cuts(Replays):
    """Takes the lines for a checkpoint after steps 2 and 6."""

    def on_train_batch_end(self, trainer: Trainer, *args: Any) -> None:
        super().on_train_batch_end(trainer, *args)
        if self.last_step in (2, 6):
            self.replay.sync()
            self.lines.append(self.replay.lines_since_parent())


def test_checkpoint_gets_the_lines_since_its_parent(tmp_path: Path) -> None:
    """Together they are the record, its first line aside."""
    callback = Cuts(tmp_path)
    replay(callback)
    steps = [[json.loads(line)["step"] for line in part.splitlines()] for part in callback.lines]
    assert steps == [[1, 2], [3, 4, 5, 6]]
    record = (tmp_path / "replay" / "segment-0000.jsonl").read_bytes()
    assert record.endswith(b"".join(callback.lines))


def verify_ddp(folder: str) -> Any:
    """Record a run of stock DDP, and verify it."""
    recorded = []
    for callback in (Replays(Path(folder)), Replays(Path(folder), "verify", expected=folder)):
        seed_everything(3, verbose=False)
        fit(2, size=24, model=Adaptive(), strategy="ddp", callbacks=[callback])
        recorded.append(callback.replay.recorded)
    return recorded


@pytest.mark.slow
def test_ddp_is_verified_by_each_rank(tmp_path: Path) -> None:
    """The statistics of BatchNorm differ by rank there, so that each has its own record."""
    results = run_ranks(verify_ddp, world_size=2, folder=str(tmp_path))
    (then, now), (then_1, now_1) = (result.value for result in results)
    assert len(then) == 3
    assert now == then != then_1
    assert [one.value for one in now_1] == [one.value for one in then_1]


def fit_on_ranks(callback: Replays, backend: str, **options: Any) -> Any:
    """Return the fingerprints of a run, or the divergence that has ended it."""
    seed_everything(3, verbose=False)
    strategy = ElCheStrategy(timeout_s=30.0, cadence=CadenceConfig(anchor=4), backend=backend)
    model = Adaptive(**options)
    try:
        fit(2, size=120, model=model, strategy=strategy, max_epochs=2, callbacks=[callback])
    except LocatedDivergence as error:
        return error
    return callback.replay.recorded


def verify_on_ranks(folder: str, backend: str) -> Any:
    """Record a run, and verify it with other speeds."""
    then = fit_on_ranks(Replays(Path(folder)), backend, delays_ms=(1.0, 5.0))
    now = fit_on_ranks(verifying(Path(folder)), backend, delays_ms=(5.0, 1.0))
    return then, now


def diverge_on_ranks(folder: str, backend: str) -> Any:
    """Record a run, and verify one in which rank 1 has a wrong bit after 7 of its steps."""
    fit_on_ranks(Replays(Path(folder)), backend, delays_ms=(3.0, 1.0))
    return fit_on_ranks(verifying(Path(folder)), backend, flips_at=6, rank=1)


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["device", "cpu"])
def test_unequal_ranks_are_verified_whatever_their_speeds(tmp_path: Path, backend: str) -> None:
    """Every state that all ranks share, and what each hands in, is that of the recorded run."""
    options = {"folder": str(tmp_path), "backend": backend}
    results = run_ranks(verify_on_ranks, world_size=2, env={"ELCHE_DELAYS_SEED": ""}, **options)
    for result in results:
        then, now = result.value
        assert len(then) >= 2
        assert now == then


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["device", "cpu"])
def test_wrong_bit_is_found_before_it_is_averaged(tmp_path: Path, backend: str) -> None:
    """All ranks name the rank and the tensor that have it."""
    options = {"folder": str(tmp_path), "backend": backend}
    results = run_ranks(diverge_on_ranks, world_size=2, env={"ELCHE_DELAYS_SEED": ""}, **options)
    for result in results:
        error = result.value
        assert (error.rank, error.moment, error.tensor) == (1, "before", "model/unused")
