"""Going back to a checkpoint when memory has nothing from before the damage."""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback

from lightning_elche import CadenceConfig, ElCheStrategy, RecoveryPolicy, Rollback
from lightning_elche.callbacks import rollback_disk
from lightning_elche.callbacks.partition_checkpoint import PartitionCheckpoint
from lightning_elche.callbacks.rollback_disk import read_sound
from lightning_elche.control.events import FROM_CHECKPOINT
from lightning_elche.exceptions import RecoveryHalted
from lightning_elche.partition import CheckpointPolicy, StoreConfig
from lightning_elche.testing import run_ranks
from tests.callbacks.rolled import Stateful, batches, fit_rolled
from tests.ranks import Recorder
from tests.ranks import fit as fit_ranks

THREE_IN_A_ROW = [6, 7, 8]  # more than two snapshots survive


class Waits(Callback):
    """Lets each checkpoint reach the disk before the next batch."""

    def __init__(self, saver: PartitionCheckpoint) -> None:
        self._saver = saver

    def on_train_batch_start(self, *_: Any) -> None:
        self._saver.wait()


def saving(folder: Path, every: int = 2) -> list[Callback]:
    policy, store = CheckpointPolicy(every_steps=every), StoreConfig(max_retained=9)
    saver = PartitionCheckpoint(folder, policy=policy, store=store)
    return [Waits(saver), saver]


def fit(
    folder: Path, rollback: Rollback, *more: Callback, nan: list[int] = THREE_IN_A_ROW
) -> tuple[Stateful, Rollback]:
    model = Stateful()
    callbacks = [rollback, *more, *saving(folder)]
    fit_rolled(batches(nan=nan), *callbacks, model=model, enable_checkpointing=True)
    return model, rollback


def restored(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.message for record in caplog.records if '"tier": "disk"' in record.message]


@pytest.fixture
def events(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    with caplog.at_level("INFO", logger="lightning_elche.events"):
        yield caplog


@pytest.mark.filterwarnings("ignore:Safety level")
def test_checkpoint_from_before_the_damage_is_restored(
    tmp_path: Path, events: pytest.LogCaptureFixture
) -> None:
    """With optimizers and schedules; what was trained since is undone, and the run goes on."""
    model, rollback = fit(tmp_path, Rollback())
    assert len(restored(events)) == 1
    assert rollback.level.name == "CONSERVATIVE"
    assert all(bool(parameter.isfinite().all()) for parameter in model.parameters())
    # Snapshots of steps 5 and 6 were there; the checkpoint is of step 4; batches 9 to 11 follow.
    assert rollback.effective_step == 4 + 3


@pytest.mark.filterwarnings("ignore:Safety level")
def test_damaged_checkpoint_is_passed_over(tmp_path: Path) -> None:
    """The one before it is taken."""

    class Damages(Callback):
        def on_train_batch_start(self, trainer: Any, module: Any, batch: Any, index: int) -> None:
            if index == 6:
                image = tmp_path / "step-00000004" / "model.safetensors"
                content = bytearray(image.read_bytes())
                content[-1] ^= 1
                image.write_bytes(content)

    _, rollback = fit(tmp_path, Rollback(), Damages())
    assert rollback.effective_step == 2 + 3


def test_run_ends_if_there_is_no_checkpoint(tmp_path: Path) -> None:
    """As without any callback that saves."""

    class Removes(Callback):
        def on_train_batch_start(self, trainer: Any, module: Any, batch: Any, index: int) -> None:
            if index == 6:
                for path in tmp_path.glob("step-*"):
                    shutil.rmtree(path)

    with pytest.raises(RecoveryHalted, match="No snapshot is from before the damage"):
        fit(tmp_path, Rollback(), Removes())


def test_checkpoint_that_comes_too_late_is_not_applied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run ends; whatever the thread finds later, nobody takes it."""
    is_over = threading.Event()

    def slow(*arguments: Any) -> Any:
        is_over.wait(20.0)
        return read_sound(*arguments)

    monkeypatch.setattr(rollback_disk, "read_sound", slow)
    model = Stateful()
    policy = RecoveryPolicy(read_deadline_s=0.05)
    with pytest.raises(RecoveryHalted) as raised:
        fit_rolled(
            batches(nan=THREE_IN_A_ROW),
            Rollback(policy=policy),
            *saving(tmp_path),
            model=model,
            enable_checkpointing=True,
        )
    versions = [parameter._version for parameter in model.parameters()]
    is_over.set()
    assert not raised.value.is_poisoned
    assert [parameter._version for parameter in model.parameters()] == versions


@pytest.mark.filterwarnings("ignore:Safety level")
def test_run_goes_on_from_memory_if_a_checkpoint_comes_too_late(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the policy says so: from the latest snapshot with finite values, warily."""
    is_over = threading.Event()

    def slow(*arguments: Any) -> Any:
        is_over.wait(20.0)
        return read_sound(*arguments)

    monkeypatch.setattr(rollback_disk, "read_sound", slow)
    rollback = Rollback(policy=RecoveryPolicy(read_deadline_s=0.05, halt_on_deadline=False))
    model, _ = fit(tmp_path, rollback)
    is_over.set()
    assert rollback.level.name == "CONSERVATIVE"
    assert all(bool(parameter.isfinite().all()) for parameter in model.parameters())


@pytest.mark.filterwarnings("ignore:Safety level")
def test_checkpoint_is_saved_once_when_the_level_becomes_conservative(tmp_path: Path) -> None:
    """After the next healthy batch, under a label that keeps it."""
    fit(tmp_path, Rollback())
    assert [path.name for path in tmp_path.glob("*-conservative")] == ["step-00000010-conservative"]


def train_ddp(folder: str) -> tuple[int, list[float], int]:
    rollback, model = Rollback(), Stateful()
    fit_rolled(
        batches(nan=THREE_IN_A_ROW),
        rollback,
        *saving(Path(folder)),
        model=model,
        strategy="ddp",
        devices=2,
        use_distributed_sampler=False,  # the same batches on both
        enable_checkpointing=True,
    )
    weights = torch.cat([parameter.detach().flatten() for parameter in model.parameters()])
    return rollback.effective_step, weights.tolist(), int(rollback.level)


@pytest.mark.slow
def test_ranks_of_ddp_go_back_to_the_same_checkpoint(tmp_path: Path) -> None:
    """Rank 0 chooses, and each reads it."""
    first, second = (
        rank.value for rank in run_ranks(train_ddp, world_size=2, folder=str(tmp_path))
    )
    assert first == second
    assert (first[0], first[2]) == (4 + 3, 3)
    assert len(list(tmp_path.glob("*-conservative"))) == 1


class AllSpoiled(Recorder):
    """Has inputs that are no numbers on every rank until they meet."""

    is_spoiled = True

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        if self.is_spoiled:
            batch = (batch[0] * torch.nan, batch[1])
        return super().training_step(batch, batch_idx)


class Meets(Callback):
    def __init__(self) -> None:
        self.restored: list[int] = []

    def on_average_end(self, event: Any) -> None:
        AllSpoiled.is_spoiled = False
        self.restored.append(event.restored_event)


def train_elche(folder: str) -> tuple[list[int], bool, list[float]]:
    """Fit with checkpoints, and go on from the last one with a window that is all spoiled."""
    options: dict[str, Any] = {"size": 200, "enable_checkpointing": True, "max_epochs": 2}
    cadence = CadenceConfig(anchor=3, max_anchor=3)
    AllSpoiled.is_spoiled = False
    for max_steps in (20, 45):
        os.environ["WORLD_SIZE"] = "2"  # Lightning removes it at the end of a fit
        meets, model = Meets(), AllSpoiled((1.0, 3.0))
        fit_ranks(
            2,
            model=model,
            callbacks=[Rollback(), meets, *saving(Path(folder), every=10)[1:]],
            # By counts, since the first steps of a busy machine may take as long as all others.
            strategy=ElCheStrategy(policy="async", timeout_s=30.0, cadence=cadence),
            max_steps=max_steps,
            ckpt_path=folder if max_steps == 45 else None,
            **options,
        )
        AllSpoiled.is_spoiled = True
    weights = torch.cat([parameter.detach().flatten() for parameter in model.parameters()])
    return meets.restored, bool(weights.isfinite().all()), weights.tolist()


@pytest.mark.slow
def test_ranks_of_elche_go_back_to_a_checkpoint_if_all_are_spoiled(tmp_path: Path) -> None:
    """At their first event after they were resumed, if there is no earlier one; they save soon."""
    ranks = run_ranks(
        train_elche, world_size=2, folder=str(tmp_path), env={"ELCHE_DELAYS_SEED": ""}
    )
    first, second = (rank.value for rank in ranks)
    assert first[0][0] == FROM_CHECKPOINT
    assert first[1]
    assert first == second
    assert len(list(tmp_path.glob("*-requested"))) == 1
