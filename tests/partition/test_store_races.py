"""Several processes at one root, processes that are killed, and disks that are full."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from lightning_elche.partition.errors import (
    CheckpointError,
    Incomplete,
    NoCheckpointFound,
    WriteFailed,
)
from lightning_elche.partition.fs import this_host
from lightning_elche.partition.store import CheckpointStore
from tests.partition.states import make_snapshot, make_store, make_tensor, names_in, weight_of

REPOSITORY = Path(__file__).resolve().parents[2]


def start(
    root: Path, *, steps: int, added: float = 0.0, keep: int = 4, size: int = 3
) -> subprocess.Popen[str]:
    arguments = [str(one) for one in (root, steps, added, keep, size)]
    command = [sys.executable, "-m", "tests.partition.saver", *arguments]
    return subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True)


def outcomes(process: subprocess.Popen[str]) -> list[list[str]]:
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    return [line.split() for line in output.splitlines()]


def local_store(root: Path) -> CheckpointStore:
    return CheckpointStore(root, host=this_host())


def test_two_writers_of_one_state_agree(tmp_path: Path) -> None:
    """Each step is written by one of them or both in turn, and none fails while old ones go."""
    writers = [start(tmp_path, steps=12, keep=2) for _ in range(2)]
    told = [outcomes(writer) for writer in writers]
    assert all(outcome in ("new", "equal") for one in told for outcome, _ in one)
    choice = local_store(tmp_path).choose()
    assert choice.rejections == ()
    assert not any(name.startswith(".") for name in names_in(tmp_path))


def test_two_writers_of_other_states_get_an_error(tmp_path: Path) -> None:
    """Of each step exactly one state is there, and the writer of the other one knows."""
    writers = [start(tmp_path, steps=12, added=added, keep=99) for added in (0.0, 0.5)]
    first, second = ({step: told for told, step in outcomes(writer)} for writer in writers)
    for step in range(1, 13):
        assert sorted([first[str(step)], second[str(step)]]) == ["divergent", "new"]
        winner = 0.0 if first[str(step)] == "new" else 0.5
        read = local_store(tmp_path).load(tmp_path / f"step-{step:08d}")
        assert weight_of(read) == step + winner


def test_reader_always_finds_a_whole_checkpoint(tmp_path: Path) -> None:
    """While a writer keeps only its newest checkpoint, a reader finds one, and all of it."""
    make_store(tmp_path).save(make_snapshot(0))
    writer = start(tmp_path, steps=40, keep=1, size=50_000)
    store, reads, last = local_store(tmp_path), 0, 0
    while writer.poll() is None:
        choice = store.choose()
        assert choice.manifest.step >= last
        last = choice.manifest.step
        with contextlib.suppress(NoCheckpointFound, Incomplete):  # removed since it was chosen
            assert weight_of(store.load(choice.path)) == last
            reads += 1
    assert len(outcomes(writer)) == 40
    assert (store.choose().manifest.step, reads > 0) == (40, True)


def kill_at_random(root: Path, rng: random.Random, *, size: int, longest_s: float) -> None:
    """Kill a writer at a random moment; what it has told to be saved must be there."""
    writer = start(root, steps=10_000, added=0.0, keep=2, size=size)
    assert writer.stdout is not None
    first = writer.stdout.readline()
    deadline = time.monotonic() + rng.uniform(0.0, longest_s)
    while time.monotonic() < deadline:
        os.sched_yield()
    os.kill(writer.pid, signal.SIGKILL)
    lines = [first, *writer.communicate(timeout=60)[0].splitlines()]
    told = [int(line.split()[1]) for line in lines if len(line.split()) == 2]
    store = local_store(root)
    choice = store.choose()
    assert choice.rejections == ()
    assert choice.manifest.step >= max(told)
    assert weight_of(store.load(choice.path)) == choice.manifest.step


def test_killed_writer_loses_nothing(tmp_path: Path) -> None:
    """A process killed at a random moment leaves all that it has saved, and a root to go on in."""
    rng = random.Random(7)
    for i in range(3):
        kill_at_random(tmp_path / str(i), rng, size=100_000, longest_s=0.1)
    local_store(tmp_path / "0").save(make_snapshot(100_000))
    assert not any(name.startswith(".tmp") for name in names_in(tmp_path / "0"))


def test_collection_between_writers_takes_only_what_is_dead(tmp_path: Path) -> None:
    """While one writer is killed and another saves, a collection removes what the first left."""
    victim, survivor = (start(tmp_path, steps=steps, keep=3) for steps in (10_000, 60))
    for writer in (victim, survivor):
        assert writer.stdout is not None
        writer.stdout.readline()
    os.kill(victim.pid, signal.SIGKILL)
    victim.communicate(timeout=60)
    while survivor.poll() is None:
        assert local_store(tmp_path).collect_garbage(should_apply=True).failures == ()
    outcomes(survivor)
    store = local_store(tmp_path)
    store.collect_garbage(should_apply=True)
    assert store.choose().rejections == ()
    assert not any(name.startswith(".") for name in names_in(tmp_path))


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_killed_writer_of_large_states_loses_nothing(tmp_path: Path) -> None:
    """The same for states of 80 MB, again and again."""
    rng = random.Random()
    end = time.monotonic() + 60.0 * float(os.environ.get("ELCHE_SOAK_MINUTES", "20"))
    while time.monotonic() < end:
        root = tmp_path / str(rng.getrandbits(32))
        kill_at_random(root, rng, size=20_000_000, longest_s=3.0)
        for path in sorted(root.rglob("*"), reverse=True):
            path.rmdir() if path.is_dir() else path.unlink()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MiB."""
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(tmp_path)]
    try:
        done = subprocess.run(mount, capture_output=True, text=True, timeout=10)
    except FileNotFoundError:
        pytest.skip("there is no `mount`")
    if done.returncode != 0:
        pytest.skip(f"tmpfs cannot be mounted: {done.stderr.strip()}")
    yield tmp_path
    subprocess.run(["umount", str(tmp_path)], check=True, timeout=10)


def test_full_disk_fails_the_save_and_nothing_else(small_disk: Path) -> None:
    """Without space a save fails with the number of the error; with space it works again."""
    store = local_store(small_disk / "root")
    store.save(make_snapshot(1))
    (small_disk / "filler").write_bytes(bytes(700_000))
    state = make_snapshot(2, groups={"model": [make_tensor("w", 2.0, size=100_000)]})
    with pytest.raises(WriteFailed) as caught:
        store.save(state)
    assert caught.value.errno == 28
    assert names_in(small_disk / "root") == ["step-00000001"]
    with pytest.raises(CheckpointError, match="two checkpoints need 800000 bytes"):
        store.preflight(400_000)
    (small_disk / "filler").unlink()
    store.save(state)
    assert store.choose().manifest.step == 2
