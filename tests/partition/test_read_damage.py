"""Damage: whatever happens to the files of a checkpoint, it is refused or an older one is used.

All 17,849 cases take five seconds and run with `ELCHE_EXHAUSTIVE=1`; else a sample does.
"""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from lightning_elche.partition.errors import CheckpointError, Corrupt, Incomplete
from lightning_elche.partition.fs import LocalFs
from lightning_elche.partition.image import HostTensor
from lightning_elche.partition.read_checkpoint import read_checkpoint
from lightning_elche.partition.read_root import choose_checkpoint
from lightning_elche.testing.recording_fs import File, RecordingFs
from tests.partition.states import make_snapshot, make_store

ROOT = Path("/ckpt")
NEW = ROOT / "step-00000002"
SAMPLE = 150  # of the damages of each file

Damage = tuple[str, bytes]


@pytest.fixture
def fs() -> RecordingFs:
    """A root with the steps 1 and 2."""
    fs = RecordingFs()
    store = make_store(ROOT, fs)
    store.save(make_snapshot(1))
    store.save(make_snapshot(2, replay=b"{}\n"))
    return fs


def files_of(fs: RecordingFs) -> dict[str, File]:
    nodes = {name: fs.node(NEW / name) for name in fs.list_names(NEW)}
    return {name: node for name, node in nodes.items() if isinstance(node, File)}


def truncations(data: bytes) -> Iterator[bytes]:
    yield from (data[:length] for length in range(len(data)))


def bit_flips(data: bytes) -> Iterator[bytes]:
    for i in range(8 * len(data)):
        flipped = bytearray(data)
        flipped[i // 8] ^= 1 << i % 8
        yield bytes(flipped)


def appends(data: bytes) -> Iterator[bytes]:
    yield from (data + bytes([byte]) for byte in range(256))
    yield data + data


@pytest.mark.parametrize("kind", [truncations, bit_flips, appends])
def test_no_damage_of_a_file_is_read(fs: RecordingFs, kind: object) -> None:
    """Every truncation, flipped bit and appended byte of every file is an error of a type."""
    assert callable(kind)
    count = 0
    for file in files_of(fs).values():
        whole = bytes(file.data)
        damages = list(kind(whole))
        if os.environ.get("ELCHE_EXHAUSTIVE") != "1":
            damages = random.Random(7).sample(damages, min(SAMPLE, len(damages)))
        for damaged in damages:
            file.data[:] = damaged
            with pytest.raises(CheckpointError):
                read_checkpoint(fs, NEW)
            count += 1
        file.data[:] = whole
    assert count > 300
    assert read_checkpoint(fs, NEW).manifest.step == 2


def test_older_checkpoint_is_chosen_for_a_damaged_one(fs: RecordingFs) -> None:
    """Damage of any file leads to the checkpoint before it, and is listed."""
    for name, file in files_of(fs).items():
        whole = bytes(file.data)
        file.data[len(whole) // 2] ^= 16
        choice = choose_checkpoint(fs, ROOT)
        assert (choice.manifest.step, [bad for bad, _ in choice.rejections]) == (1, [NEW.name]), (
            name
        )
        file.data[:] = whole


def test_missing_file_is_incomplete(fs: RecordingFs) -> None:
    """Without any one of its files, a checkpoint is incomplete."""
    folder = fs.folder(NEW)
    for name in list(folder.entries):
        held = folder.entries.pop(name)
        with pytest.raises(Incomplete, match=name):
            read_checkpoint(fs, NEW)
        folder.entries[name] = held


def test_error_names_file_partition_and_rows(tmp_path: Path) -> None:
    """A damaged byte is traced to the partition that has written it."""
    big = HostTensor.of("w", np.zeros(40_000, dtype=np.float32))
    state = make_snapshot(1, groups={"model": [big]})
    plan = type(state.plan).row_ranges(state.row_space().num_rows, 3)
    saved = make_store(tmp_path).save(make_snapshot(1, groups={"model": [big]}, plan=plan))
    file = saved.path / "model.safetensors"
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    with pytest.raises(Corrupt) as caught:
        read_checkpoint(LocalFs(), saved.path)
    error = caught.value
    assert (error.file, error.partition, error.rows) == ("model.safetensors", 2, (2, 3))
