"""Tests of the group that makes a rank slow."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from cpu_group import can_limit, cpu_group

needs_groups = pytest.mark.skipif(
    not can_limit(), reason="needs root and the CPU controller of cgroup v1"
)


def test_a_machine_without_the_controller_cannot_limit(tmp_path: Path) -> None:
    """The benchmark falls back to sleeping."""
    assert not can_limit(tmp_path)


@needs_groups
def test_the_group_has_the_quota_and_goes_away() -> None:
    """A quarter of a core is 25 of 100 ms."""
    with cpu_group(0.25) as procs:
        quota = (procs.parent / "cpu.cfs_quota_us").read_text()
    assert int(quota) == 25_000
    assert not procs.parent.exists()


@needs_groups
def test_a_process_enters_by_its_id() -> None:
    """What runs in the group is listed there until it ends."""
    enter = "import os, sys; open(sys.argv[1], 'w').write(str(os.getpid())); input()"
    with cpu_group(0.5) as procs:
        process = subprocess.Popen([sys.executable, "-c", enter, str(procs)], stdin=subprocess.PIPE)
        try:
            while not (members := procs.read_text().split()):
                assert process.poll() is None
        finally:
            process.kill()
            process.communicate()
    assert members == [str(process.pid)]


@needs_groups
def test_the_group_goes_away_after_an_error() -> None:
    """Nothing is left behind."""

    def fail() -> None:
        raise RuntimeError("on purpose")

    with pytest.raises(RuntimeError, match="on purpose"), cpu_group(0.5) as procs:
        fail()
    assert not procs.parent.exists()
