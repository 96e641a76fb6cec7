"""Phases that store partitions in files."""

from __future__ import annotations

import errno
import hashlib
from pathlib import Path
from typing import Any

import pytest

from lightning_elche.partition.errors import PhaseFailed
from lightning_elche.partition.fs import LocalFs
from lightning_elche.partition.phases import PartFiles
from lightning_elche.partition.plan import PartitionId
from lightning_elche.partition.plane import PartitionedStep, PartitionPlane
from lightning_elche.partition.threaded import ThreadedExecutor
from tests.partition.tables import PLAN, double, table


class Watched(LocalFs):
    """The local file system, which counts open files and fails where it is told to."""

    def __init__(self, fails: str = "") -> None:
        self.fails = fails
        self.num_open = 0
        self.synced: list[str] = []

    def create(self, path: Path) -> int:
        self.num_open += 1
        return super().create(path)

    def open_read(self, path: Path) -> int:
        self.num_open += 1
        return super().open_read(path)

    def close(self, descriptor: int) -> None:
        self.num_open -= 1
        super().close(descriptor)

    def pwrite(self, descriptor: int, data: memoryview, offset: int) -> int:
        if self.fails == "pwrite":
            raise OSError(errno.ENOSPC, "No space left on device")
        return super().pwrite(descriptor, data[:7], offset)  # short, as a system call may be

    def fsync(self, descriptor: int) -> None:
        if self.fails == "fsync":
            raise OSError(errno.EIO, "Input/output error")
        self.synced.append("file")
        super().fsync(descriptor)

    def fsync_folder(self, path: Path) -> None:
        self.synced.append("folder")
        super().fsync_folder(path)

    def pread_into(self, descriptor: int, buffer: memoryview, offset: int) -> int:
        count = super().pread_into(descriptor, buffer, offset)
        if self.fails == "pread":
            buffer[0] ^= 1
        return count


def store(fs: LocalFs, folder: Path) -> tuple[PartFiles, PartitionedStep[Any]]:
    """Store a table in three partitions on two threads."""
    with PartFiles(fs, folder) as files:
        plane = PartitionPlane(table(), step=42, plan=PLAN)
        for phase in files.phases:
            plane.add_phase(phase.name, phase.function, is_persisting=phase.is_persisting)
        step = plane.step(ThreadedExecutor(2))
        assert plane.current_step == 42
        return files, step


def test_each_partition_has_a_file_of_its_rows(tmp_path: Path) -> None:
    """The files are named after step and partition, and hold the bytes of the rows."""
    files, _ = store(Watched(), tmp_path)
    names = [f"step-00000042.part-000{i}" for i in range(3)]
    assert sorted(path.name for path in tmp_path.iterdir()) == names
    for assignment in PLAN.assignments:
        rows = table().slice(assignment.row_start, assignment.row_end)
        part = files.stored[assignment.partition_id]
        assert part.path.read_bytes() == rows.to_bytes()
        assert part.sha256 == hashlib.sha256(rows.to_bytes()).hexdigest()
        assert (part.num_bytes, part.fingerprint) == (rows.num_bytes, rows.fingerprint(42))


def test_each_phase_is_reported(tmp_path: Path) -> None:
    """A step reports all five phases of all partitions."""
    _, step = store(Watched(), tmp_path)
    assert [report.name for report in step.reports] == [
        "snapshot",
        "fingerprint",
        "write",
        "fsync",
        "read_back",
    ] * 3


def test_files_and_names_are_synced(tmp_path: Path) -> None:
    """Each file is on the disk, and its name after it."""
    fs = Watched()
    with PartFiles(fs, tmp_path) as files:
        plane = PartitionPlane(table())
        for phase in files.phases:
            plane.add_phase(phase.name, phase.function, is_persisting=True)
        plane.step()
    assert fs.synced == ["file", "folder"]


@pytest.mark.parametrize(
    ("fails", "phase", "text"),
    [
        ("pwrite", "write", "No space left on device"),
        ("fsync", "fsync", "Input/output error"),
        ("pread", "read_back", "does not hold the bytes that were written"),
    ],
)
def test_fault_is_named_by_phase_and_leaves_no_file_open(
    tmp_path: Path, fails: str, phase: str, text: str
) -> None:
    """A full or failing disk, or another content, ends the step; all files are closed."""
    fs = Watched(fails)
    with pytest.raises(PhaseFailed, match=text) as caught:
        store(fs, tmp_path)
    assert (caught.value.partition, caught.value.phase) == (PartitionId(0), phase)
    assert fs.num_open == 0


def test_file_that_exists_is_not_overwritten(tmp_path: Path) -> None:
    """What is there stays."""
    path = tmp_path / "step-00000042.part-0001"
    path.write_bytes(b"mine")
    with pytest.raises(PhaseFailed, match="File exists"):
        store(Watched(), tmp_path)
    assert path.read_bytes() == b"mine"


def test_rows_are_stored_as_other_phases_left_them(tmp_path: Path) -> None:
    """Phases before change what is stored, phases after do not."""
    with PartFiles(LocalFs(), tmp_path) as files:
        plane = PartitionPlane(table())
        plane.add_phase("before", double)
        for phase in files.phases:
            plane.add_phase(phase.name, phase.function, is_persisting=True)
        plane.add_phase("after", double)
        plane.step()
        stored = table().with_bytes(files.stored[PartitionId(0)].path.read_bytes())
    assert stored.columns["x"].tolist() == [2.0 * i for i in range(10)]
    assert plane.state.columns["x"].tolist() == [4.0 * i for i in range(10)]
