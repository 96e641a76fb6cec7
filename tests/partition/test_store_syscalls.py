"""Every system call of a save that changes a file system, in a process of its own: strace."""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from lightning_elche.partition.fs import this_host
from lightning_elche.partition.read_checkpoint import verify_checkpoint
from lightning_elche.partition.store import CheckpointStore
from tests.partition.states import make_snapshot, make_tensor, names_in

REPOSITORY = Path(__file__).resolve().parents[2]
CALLS = ("openat", "mkdir", "pwrite64", "fsync", "rename", "unlink", "rmdir")

pytestmark = [
    pytest.mark.soak,
    pytest.mark.timeout(1800),
    pytest.mark.skipif(shutil.which("strace") is None, reason="there is no strace"),
]


def run(root: Path, *prefix: str) -> int:
    """Save steps 1 and 2, of which one is kept, and return how the process has ended."""
    command = [*prefix, sys.executable, "-m", "tests.partition.saver"]
    done = subprocess.run(
        [*command, str(root), "2", "0.0", "1", "3"],
        cwd=REPOSITORY,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        timeout=60,
        check=False,
    )
    return done.returncode


def first_of(call: str, folder: Path) -> int:
    """Return which of the calls of a save, from 1, is the first after Python has started."""
    root, trace = folder / "first", folder / "trace"
    assert run(root, "strace", "-f", "-qq", "-o", str(trace), "-e", f"trace={call}") == 0
    calls = trace.read_text().splitlines()
    return next((number for number, line in enumerate(calls, 1) if str(root) in line), 1)


@pytest.mark.parametrize("fault", ["signal=KILL", "error=ENOSPC", "error=EIO"])
@pytest.mark.parametrize("call", CALLS)
def test_nothing_is_lost_at_any_system_call(tmp_path: Path, call: str, fault: str) -> None:
    """The step before or this one is resumed from, and the next attempt leaves nothing behind."""
    first = first_of(call, tmp_path)
    for number in itertools.count(first):
        root = tmp_path / str(number)
        store = CheckpointStore(root, host=this_host())
        store.save(make_snapshot(1, groups={"model": [make_tensor("w", 1.0)]}))
        inject = f"inject={call}:{fault}:when={number}"
        trace = ("strace", "-f", "-qq", "-o", str(tmp_path / "trace"), "-e", f"trace={call}")
        ended = run(root, *trace, "-e", inject)
        choice = CheckpointStore(root, host=this_host()).choose()
        verify_checkpoint(this_host().fs, choice.path, "deep")
        assert choice.rejections == ()
        assert choice.manifest.step == 2 or ended != 0
        assert run(root) == 0
        assert names_in(root) == ["step-00000002"]
        if "INJECTED" not in (tmp_path / "trace").read_text() and ended == 0:
            break
    assert number > first
