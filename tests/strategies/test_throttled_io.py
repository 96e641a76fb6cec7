"""Checkpoints that are saved locally and copied in the background."""

from __future__ import annotations

import os
import pickle
import signal
import threading
import time
import warnings
from pathlib import Path
from typing import Any

import fsspec
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.plugins import AsyncCheckpointIO, TorchCheckpointIO

from lightning_elche import PartitionCheckpointIO
from lightning_elche.coordination.bandwidth.budget import (
    PRIORITIES,
    BandwidthBudget,
    BandwidthConfig,
)
from lightning_elche.strategies.throttled_io import ThrottledCheckpointIO
from lightning_elche.strategies.uploads import Upload
from lightning_elche.testing import run_ranks
from tests.coordination.calls import eventually
from tests.ranks import fit

STATE = {"weights": torch.arange(1000.0)}
MBIT_BYTES = 125_000


def budget_of(mbps: float) -> BandwidthBudget:
    factors = dict.fromkeys(PRIORITIES, 1.0)
    return BandwidthBudget(BandwidthConfig(per_host={"local": mbps}, factors=factors, floor_mbps=0))


def make_io(remote: Path, *, mbps: float = 8000.0, **options: Any) -> ThrottledCheckpointIO:
    return ThrottledCheckpointIO(None, str(remote), budget=budget_of(mbps), **options)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


@pytest.fixture
def places(tmp_path: Path) -> tuple[Path, Path]:
    return tmp_path / "local", tmp_path / "remote"


def test_checkpoint_is_copied_bit_for_bit(places: tuple[Path, Path]) -> None:
    """And nothing else is left, neither here nor there."""
    local, remote = places
    io = make_io(remote)
    io.save_checkpoint(STATE, local / "a.ckpt")
    assert io.drain(20.0)
    assert (names(local), names(remote)) == (["a.ckpt"], ["a.ckpt"])
    assert (local / "a.ckpt").read_bytes() == (remote / "a.ckpt").read_bytes()
    assert torch.equal(io.load_checkpoint(remote / "a.ckpt")["weights"], STATE["weights"])


def test_checkpoint_is_copied_to_where_there_are_no_renames(tmp_path: Path) -> None:
    """As to object storage, here in memory; the bucket is the host of the budget."""
    budget = BandwidthBudget(BandwidthConfig(per_host={"bucket": 8000.0}))
    io = ThrottledCheckpointIO(None, "memory://bucket/run", budget=budget, priority="high")
    io.save_checkpoint(STATE, tmp_path / "a.ckpt")
    assert io.drain(20.0)
    files = fsspec.filesystem("memory")
    assert files.cat("/bucket/run/a.ckpt") == (tmp_path / "a.ckpt").read_bytes()
    assert budget.sent_bytes["high"] == (tmp_path / "a.ckpt").stat().st_size


def test_save_returns_before_the_copy_is_made(places: tuple[Path, Path]) -> None:
    """Which takes a minute here; the end of the fit does not wait longer than it is told to."""
    local, remote = places
    io = make_io(remote, mbps=0.0006, drain_timeout_s=0.0)
    began = time.perf_counter()
    io.save_checkpoint(STATE, local / "a.ckpt")
    assert names(local) == ["a.ckpt"]
    with pytest.warns(UserWarning, match=r"a.ckpt is not at .*The local file is complete"):
        io.teardown()
    assert time.perf_counter() - began < 10.0
    assert "a.ckpt" not in names(remote)


def test_failure_is_told_at_the_next_save(
    places: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """After three attempts; a file stands where the folder should be. Local files are complete."""
    local, remote = places
    monkeypatch.setattr("lightning_elche.strategies.uploads.RETRY_S", 0.001)
    remote.write_text("in the way")
    io = make_io(remote)
    io.save_checkpoint(STATE, local / "a.ckpt")
    assert io.drain(20.0)
    with pytest.warns(UserWarning, match="a.ckpt is not at .*FileExistsError"):
        io.save_checkpoint(STATE, local / "b.ckpt")
    assert io.drain(20.0)
    remote.unlink()
    with pytest.warns(UserWarning, match="b.ckpt is not at"):
        io.save_checkpoint(STATE, local / "c.ckpt")
    io.teardown()
    assert (names(local), names(remote)) == (["a.ckpt", "b.ckpt", "c.ckpt"], ["c.ckpt"])


class Breaks(TorchCheckpointIO):
    """Writes half of a file and fails."""

    def save_checkpoint(self, checkpoint: Any, path: Any, storage_options: Any = None) -> None:
        Path(path).write_bytes(b"half")
        raise OSError("no space left")


def test_save_that_fails_leaves_the_earlier_file(places: tuple[Path, Path]) -> None:
    """Whole, and nothing beside it."""
    local, remote = places
    make_io(remote).save_checkpoint(STATE, local / "a.ckpt")
    before = (local / "a.ckpt").read_bytes()
    broken = ThrottledCheckpointIO(Breaks(), str(remote), budget=budget_of(8000.0))
    with pytest.raises(OSError, match="no space left"):
        broken.save_checkpoint(STATE, local / "a.ckpt")
    assert (local / "a.ckpt").read_bytes() == before
    assert names(local) == ["a.ckpt"]


def test_removed_checkpoint_is_removed_there_after_newer_ones_arrived(
    places: tuple[Path, Path],
) -> None:
    """In the order in which both were asked for."""
    local, remote = places
    io = make_io(remote)
    io.save_checkpoint(STATE, local / "a.ckpt")
    assert io.drain(20.0)
    seen: list[list[str]] = []
    io.uploads.on_done = lambda _: seen.append(names(remote))
    io.save_checkpoint(STATE, local / "b.ckpt")
    io.remove_checkpoint(str(local / "a.ckpt"))  # fsspec takes no `Path` before 2023
    assert io.drain(20.0)
    assert (seen, names(remote)) == ([["a.ckpt", "b.ckpt"]], ["b.ckpt"])


def test_file_that_is_gone_before_its_turn_is_not_missed(places: tuple[Path, Path]) -> None:
    """Nothing is told of it."""
    local, remote = places
    io = make_io(remote)
    io.uploads.put(local / "never.ckpt")
    assert io.drain(20.0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        io.teardown()


def test_uploads_are_told_of(places: tuple[Path, Path]) -> None:
    """With size and duration."""
    local, remote = places
    io, told = make_io(remote), list[Upload]()
    io.uploads.on_done = told.append
    io.save_checkpoint(STATE, local / "a.ckpt")
    assert io.drain(20.0)
    assert (told[0].num_bytes, told[0].error) == ((local / "a.ckpt").stat().st_size, "")


def test_plugin_goes_on_after_the_end_of_a_fit(places: tuple[Path, Path]) -> None:
    """And in another process that it was sent to."""
    local, remote = places
    io = make_io(remote)
    for name in ("a.ckpt", "b.ckpt"):
        io.save_checkpoint(STATE, local / name)
        io.teardown()
    other = pickle.loads(pickle.dumps(io))
    other.save_checkpoint(STATE, local / "c.ckpt")
    other.teardown()
    assert names(remote) == ["a.ckpt", "b.ckpt", "c.ckpt"]


def test_best_checkpoint_of_a_fit_is_there_at_its_end(places: tuple[Path, Path]) -> None:
    """The same files as here, although earlier ones were removed."""
    local, remote = places
    keep = ModelCheckpoint(dirpath=local, every_n_epochs=1, save_top_k=1, monitor="train_loss")
    io = ThrottledCheckpointIO(None, str(remote), budget=budget_of(8000.0))
    fit(
        1,
        size=40,
        val_size=4,
        max_epochs=3,
        callbacks=[keep],
        enable_checkpointing=True,
        strategy="auto",
        plugins=[io],
    )
    assert names(remote) == names(local) == [Path(keep.best_model_path).name]


def save_and_die(folder: Path) -> None:
    """Save a checkpoint of 8 MB, and be killed while it is copied."""
    io = make_io(folder / "remote", mbps=4.0)
    io.save_checkpoint({"weights": torch.arange(2_000_000.0)}, folder / "local" / "a.ckpt")
    part = folder / "remote" / "a.ckpt.part"
    assert eventually(lambda: part.exists() and part.stat().st_size > 100_000)
    os.kill(os.getpid(), signal.SIGKILL)


def test_kill_during_a_copy_leaves_the_local_file(tmp_path: Path) -> None:
    """Whole; and what there is of the copy does not have its name."""
    (result,) = run_ranks(save_and_die, world_size=1, check=False, folder=tmp_path)
    assert result.returncode == -signal.SIGKILL
    state = TorchCheckpointIO().load_checkpoint(tmp_path / "local" / "a.ckpt")
    assert torch.equal(state["weights"], torch.arange(2_000_000.0))
    assert names(tmp_path / "remote") == ["a.ckpt.part"]


@pytest.mark.timing
def test_rate_holds_in_any_five_seconds_of_a_real_copy(places: tuple[Path, Path]) -> None:
    """50 MB at 50 Mbit/s: at most 105 % of it, and it does not idle either."""
    local, remote = places
    local.mkdir()
    (local / "a.bin").write_bytes(os.urandom(50_000_000))
    io, over, sizes = make_io(remote, mbps=50.0), threading.Event(), list[tuple[float, int]]()
    io.uploads.on_done = lambda _: over.set()
    io.uploads.put(local / "a.bin")
    part = remote / "a.bin.part"
    while not over.wait(0.01):
        if part.exists():
            sizes.append((time.perf_counter(), part.stat().st_size))
    rates = [
        (later - earlier) / (5.0 * 50.0 * MBIT_BYTES)
        for at, earlier in sizes[::10]
        for until, later in sizes
        if at + 4.99 <= until <= at + 5.0
    ]
    assert min(rates) >= 0.90
    assert max(rates) <= 1.05


@pytest.mark.parametrize("inner", [AsyncCheckpointIO, PartitionCheckpointIO])
def test_inner_plugin_that_does_not_write_one_file_is_refused(inner: type, tmp_path: Path) -> None:
    """The message says what to do instead."""
    with pytest.raises(ValueError, match=r"`inner` must write one file .*PartitionCheckpointIO\("):
        ThrottledCheckpointIO(inner(), str(tmp_path), budget=BandwidthBudget())


def test_options_out_of_range_are_refused(tmp_path: Path) -> None:
    """The messages name option and value, and the fix."""
    with pytest.raises(ValueError, match=r"`drain_timeout_s` must be >= 0, got -1.0"):
        make_io(tmp_path, drain_timeout_s=-1.0)
    with pytest.raises(ValueError, match=r"`budget` must grant background transfers .*`per_host`"):
        ThrottledCheckpointIO(
            None, "memory://x", budget=BandwidthBudget(BandwidthConfig(link_mbps=50.0))
        )
    with pytest.raises(ValueError, match=r"`path` must be a local file, .*got 'memory://a.ckpt'"):
        make_io(tmp_path).save_checkpoint(STATE, "memory://a.ckpt")
