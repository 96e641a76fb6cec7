"""Checkpoints that ranks have written together, restored on other numbers of ranks."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from lightning_elche.partition.fs import this_host
from lightning_elche.partition.read_checkpoint import verify_checkpoint
from lightning_elche.strategies.checkpoint_io import PartitionCheckpointIO, SaveOptions
from lightning_elche.testing import run_ranks
from tests.callbacks.partitioned import Drawing
from tests.callbacks.restored import SIZE, restore, save_and_keep, train

pytestmark = pytest.mark.slow

WITHIN_S = 60.0


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[object]]:
    """Where two ranks have saved, and what each of them knows."""
    root = tmp_path_factory.mktemp("saved")
    ranks = run_ranks(save_and_keep, world_size=2, timeout_s=WITHIN_S, root=str(root))
    return root, [one.value for one in ranks]


def digests(path: Path) -> dict[str, str]:
    names = ("model.safetensors", "optimizer-0.safetensors", "tree.json")
    return {name: hashlib.sha256((path / name).read_bytes()).hexdigest() for name in names}


def test_two_ranks_write_the_files_that_one_process_writes(
    saved: tuple[Path, list[object]], tmp_path: Path
) -> None:
    """Each its part of the rows; the files have the same digests."""
    (path,) = (saved[0] / "averaged").glob("step-*")
    manifest = verify_checkpoint(this_host().fs, path, "deep")
    assert [one.partition_id.value for one in manifest.plan.assignments] == [0, 1]
    io = PartitionCheckpointIO()
    state = io.load_checkpoint(path)
    names = [name for name, _ in Drawing().named_parameters()]
    io.save_checkpoint(state, tmp_path / path.name, SaveOptions(parameters=[names]))
    assert digests(path) == digests(tmp_path / path.name)


def test_one_rank_goes_on_with_the_same_fingerprint(saved: tuple[Path, list[object]]) -> None:
    """That of model and optimizer; and it trains what is left of the epoch."""
    expected, actual, seen = restore(str(saved[0] / "averaged"))
    assert expected == actual
    assert len(seen) == len(set(seen)) < SIZE


@pytest.mark.parametrize(
    "world_size",
    [3, *(pytest.param(count, marks=pytest.mark.soak) for count in (2, 4, 5))],
)
def test_any_number_of_ranks_goes_on_with_the_same_fingerprint(
    saved: tuple[Path, list[object]], world_size: int
) -> None:
    """Each of them; and each sample that is left is trained once."""
    root = str(saved[0] / "averaged")
    ranks = run_ranks(restore, world_size=world_size, timeout_s=WITHIN_S, root=root)
    values = {value for one in ranks for value in one.value[:2]}
    seen = [index for one in ranks for index in one.value[2]]
    assert len(values) == 1
    assert len(seen) == len(set(seen)) < SIZE


def test_as_many_ranks_get_back_the_optimizer_states_that_they_have_kept(
    saved: tuple[Path, list[object]],
) -> None:
    """Each its own, bit for bit."""
    (before0, after0), (before1, after1) = saved[1]
    assert (after0, after1) == (before0, before1)
    assert before0["exp_avg"] != before1["exp_avg"]


def test_one_rank_gets_the_mean_of_what_two_have_kept(saved: tuple[Path, list[object]]) -> None:
    """And the larger number of steps."""
    (first, _), (second, _) = saved[1]
    _, looks = train(str(saved[0] / "alone"), resume=str(saved[0] / "kept"), steps=100)
    mean = [(a + b) / 2 for a, b in zip(first["exp_avg"], second["exp_avg"], strict=True)]
    assert looks.moments["exp_avg"] == pytest.approx(mean, rel=1e-6)
    assert looks.moments["step"] == [max(first["step"][0], second["step"][0])]
