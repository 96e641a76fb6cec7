"""What a process sees of its machine; control groups as files, and real ones where they are."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from lightning_elche.coordination.host.cgroups import cpu_quotas, memory_limits
from lightning_elche.coordination.host.probes import CpuProbe, memory_percent
from tests.distributed.threads import FakeClock

V1 = Path("/sys/fs/cgroup/memory")
GB = 10**9


def tree(root: Path, files: Mapping[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


VERSION_2 = {
    "proc/self/cgroup": "0::/jobs/7\n",
    "sys/fs/cgroup/cgroup.controllers": "cpu memory\n",
    "sys/fs/cgroup/jobs/memory.max": "max\n",
    "sys/fs/cgroup/jobs/memory.current": "3000\n",
    "sys/fs/cgroup/jobs/memory.stat": "anon 1\ninactive_file 0\n",
    "sys/fs/cgroup/jobs/cpu.max": "50000 100000\n",
    "sys/fs/cgroup/jobs/cpu.stat": "usage_usec 7000000\nuser_usec 1\n",
    "sys/fs/cgroup/jobs/7/memory.max": "1000\n",
    "sys/fs/cgroup/jobs/7/memory.current": "900\n",
    "sys/fs/cgroup/jobs/7/memory.stat": "anon 1\ninactive_file 100\nactive_file 5\n",
    "sys/fs/cgroup/jobs/7/cpu.max": "max 100000\n",
    "sys/fs/cgroup/jobs/7/cpu.stat": "usage_usec 1000000\n",
}
VERSION_1 = {
    "proc/self/cgroup": "5:memory:/jobs/7\n3:cpu,cpuacct:/jobs\n0::/\n",
    "sys/fs/cgroup/memory/jobs/7/memory.limit_in_bytes": "1000\n",
    "sys/fs/cgroup/memory/jobs/7/memory.usage_in_bytes": "900\n",
    "sys/fs/cgroup/memory/jobs/7/memory.stat": "inactive_file 7\ntotal_inactive_file 100\n",
    "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
    "sys/fs/cgroup/memory/memory.usage_in_bytes": "5000\n",
    "sys/fs/cgroup/memory/memory.stat": "total_inactive_file 100\n",
    "sys/fs/cgroup/cpu/jobs/cpu.cfs_quota_us": "50000\n",
    "sys/fs/cgroup/cpu/jobs/cpu.cfs_period_us": "100000\n",
    "sys/fs/cgroup/cpuacct/jobs/cpuacct.usage": "7000000000\n",
    "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1\n",
    "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
}
# Seen from inside a container, the path of the process lies outside of what is mounted.
IN_CONTAINER = {
    "proc/self/cgroup": "0::/../../docker/abc\n",
    "sys/fs/cgroup/cgroup.controllers": "cpu memory\n",
    **{
        f"sys/fs/cgroup/{name}": VERSION_2[f"sys/fs/cgroup/jobs/7/{name}"]
        for name in ("memory.max", "memory.current", "memory.stat")
    },
    **{
        f"sys/fs/cgroup/{name}": VERSION_2[f"sys/fs/cgroup/jobs/{name}"]
        for name in ("cpu.max", "cpu.stat")
    },
}
every_version = pytest.mark.parametrize("files", [VERSION_2, VERSION_1, IN_CONTAINER])


@every_version
def test_memory_of_a_group_is_used_without_what_could_be_dropped(
    tmp_path: Path, files: Mapping[str, str]
) -> None:
    """Groups without a limit are left out."""
    assert list(memory_limits(tree(tmp_path, files))) == [(800, 1000)]


@every_version
def test_quota_of_a_group_counts_its_own_seconds(tmp_path: Path, files: Mapping[str, str]) -> None:
    """Those of the group that has the quota, be it the one above."""
    ((cpus, used_s),) = cpu_quotas(tree(tmp_path, files))
    assert (cpus, used_s()) == (0.5, 7.0)


def test_fullest_memory_counts(tmp_path: Path) -> None:
    """That of the group here, since its limit is small."""
    assert memory_percent(tree(tmp_path, VERSION_2)) == pytest.approx(80.0)


def test_machine_counts_where_no_group_limits(tmp_path: Path) -> None:
    """As where there is no Linux."""
    machine = psutil.virtual_memory()
    expected = 100.0 * (1.0 - machine.available / machine.total)
    assert memory_percent(tmp_path) == pytest.approx(expected, abs=5.0)


def test_cpu_is_busy_in_percent_of_the_quota(tmp_path: Path) -> None:
    """0.3 seconds of one CPU in a second, of half a CPU that there is."""
    root, clock = tree(tmp_path, VERSION_2), FakeClock()
    probe = CpuProbe(root, clock=clock)
    clock.now += 1.0
    (root / "sys/fs/cgroup/jobs/cpu.stat").write_text("usage_usec 7300000\n")
    assert probe.percent() == pytest.approx(60.0)
    assert probe.percent() == 0.0  # no time has passed


def test_cpu_of_the_machine_is_busy_while_somebody_computes(tmp_path: Path) -> None:
    """This test does, for long enough to be counted."""
    probe, ticks = CpuProbe(tmp_path), psutil.cpu_times().user
    while psutil.cpu_times().user < ticks + 0.05:
        sum(range(1000))
    assert 0.0 < probe.percent() <= 100.0


@contextmanager
def real_group(name: str, limit: int) -> Iterator[Path]:
    folder = V1 / name
    try:
        folder.mkdir()
        (folder / "memory.limit_in_bytes").write_text(str(limit))
    except OSError as err:
        pytest.skip(f"no control group can be made here: {err}")
    try:
        yield folder
    finally:
        folder.rmdir()


FILL = """
import os, sys
open(sys.argv[1] + "/cgroup.procs", "w").write(str(os.getpid()))
block = bytearray(60_000_000)
block[::4096] = b"x" * len(block[::4096])
from lightning_elche.coordination.host.probes import memory_percent
print(memory_percent())
"""


@pytest.mark.skipif(not V1.is_dir(), reason="needs control groups of version 1")
def test_memory_of_a_real_group_is_seen() -> None:
    """A process that fills 60 of 100 MB, and what the interpreter takes."""
    with real_group(f"elche-test-{os.getpid()}", 100_000_000) as folder:
        done = subprocess.run(
            [sys.executable, "-c", FILL, str(folder)], capture_output=True, text=True, timeout=60
        )
        assert done.returncode == 0, done.stderr
        assert 55.0 < float(done.stdout) < 100.0
