"""What a host has room for, and how tasks split it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightning_elche.coordination.host.thresholds import ThresholdConfig
from lightning_elche.coordination.registry import machine
from lightning_elche.coordination.registry.admit_threshold import shortage
from lightning_elche.coordination.registry.capacity import Machine, Peaks, capacity, moved_slots
from lightning_elche.coordination.registry.machine import gpus_in, read_machine
from lightning_elche.coordination.registry.negotiate import negotiate

GIB = 2**30


def host(**options: float | str) -> Machine:
    """A host without a shortage of anything but what is named."""
    roomy = {"ram_bytes": 2**50, "cores": 1e6}
    return Machine(**{**roomy, **options})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("NVIDIA GH200 480GB", 48),
        ("NVIDIA H100 80GB HBM3", 24),
        ("NVIDIA H200", 24),
        ("NVIDIA A100-SXM4-40GB", 16),
        ("NVIDIA L40S", 16),
        ("NVIDIA GeForce RTX 4090", 10),
        ("NVIDIA GeForce RTX 4080", 8),
        ("NVIDIA GeForce RTX 3070", 4),
        ("Tesla V100", 4),
    ],
)
def test_gpu_has_room_by_its_name(name: str, count: int) -> None:
    """As long as nobody has measured a task."""
    assert capacity(host(gpus=2, gpu_name=name)) == 2 * count


@pytest.mark.parametrize(
    ("given_", "peaks", "room"),
    [
        ({"gpus": 2, "vram_bytes": 160 * GIB}, {"vram_bytes": 25 * GIB}, 4),
        ({"ram_bytes": 64 * GIB}, {}, 28),
        ({"ram_bytes": 64 * GIB}, {"ram_bytes": 10 * GIB}, 5),
        ({"ram_bytes": 1 * GIB}, {}, 1),
        ({"ram_bytes": 1 * GIB}, {"ram_bytes": 2 * GIB}, 0),
        ({"cores": 16}, {}, 8),
        ({"cores": 1}, {}, 1),
        ({"cores": 16}, {"cores": 3.0}, 5),
        ({"cores": 2}, {"cores": 3.0}, 1),
    ],
)
def test_what_is_scarcest_counts(given_: dict[str, int], peaks: dict[str, int], room: int) -> None:
    """A tenth of memory stays free, and a guess allows at least one task."""
    assert capacity(host(**given_), Peaks(**peaks)) == room  # type: ignore[arg-type]


def test_gpus_do_not_limit_what_does_not_use_them() -> None:
    """And of a host of which nothing is known, nothing is said."""
    assert capacity(host(gpus=1, cores=64), needs_gpu=False) == 32
    assert capacity(Machine()) is None


@pytest.mark.parametrize(
    ("utilization", "since_s", "slots"),
    [(54.0, 30.0, 6), (54.0, 29.0, 5), (55.0, 60.0, 5), (85.0, 60.0, 5), (86.0, 60.0, 4)],
)
def test_slots_move_by_one(utilization: float, since_s: float, slots: int) -> None:
    """Below 55 and above 85 percent, each 30 seconds."""
    assert moved_slots(5, utilization_pct=utilization, bounds=(1, 9), since_s=since_s) == slots


def test_slots_stay_within_their_bounds() -> None:
    """Also where these were changed meanwhile."""
    assert moved_slots(9, utilization_pct=1.0, bounds=(1, 9), since_s=99.0) == 9
    assert moved_slots(1, utilization_pct=99.0, bounds=(1, 9), since_s=99.0) == 1
    assert moved_slots(12, utilization_pct=70.0, bounds=(1, 9), since_s=0.0) == 9


claims = st.lists(st.tuples(st.floats(0.0, 10.0), st.floats(0.01, 10.0)), min_size=1, max_size=8)


@given(claims, st.floats(0.0, 20.0))
def test_grants_sum_to_what_there_is_or_is_asked_for(
    asked: list[tuple[float, float]], target: float
) -> None:
    """And nobody gets more than asked for."""
    grants = negotiate(asked, target)
    assert sum(grants) == pytest.approx(min(target, sum(want for want, _ in asked)), abs=1e-9)
    assert all(grant <= want + 1e-9 for grant, (want, _) in zip(grants, asked, strict=True))


@given(claims, st.floats(0.1, 20.0))
def test_who_gets_less_than_asked_for_has_the_common_level(
    asked: list[tuple[float, float]], target: float
) -> None:
    """By weight, and nobody is above it."""
    grants = negotiate(asked, target)
    rows = list(zip(grants, asked, strict=True))
    levels = [grant / weight for grant, (want, weight) in rows if grant < want - 1e-6]
    assert levels == pytest.approx(levels[:1] * len(levels), abs=1e-6)
    if levels:
        assert all(grant / weight <= levels[0] + 1e-6 for grant, (_, weight) in rows)


@given(claims, st.floats(0.0, 20.0), st.randoms())
def test_order_makes_no_difference(
    asked: list[tuple[float, float]], target: float, draw: object
) -> None:
    """Each gets the same wherever it stands."""
    order = list(range(len(asked)))
    draw.shuffle(order)  # type: ignore[attr-defined]
    grants = negotiate(asked, target)
    shuffled = negotiate([asked[i] for i in order], target)
    assert list(shuffled) == pytest.approx([grants[i] for i in order], abs=1e-9)


def test_listing_of_the_driver_is_read() -> None:
    """What shares its memory with the host has none of its own."""
    listing = "NVIDIA H100 80GB HBM3, 81559\nNVIDIA A, B, 1024\nNVIDIA GB10, [N/A]\n"
    assert gpus_in(listing) == [("NVIDIA H100 80GB HBM3", 81559 * 2**20), ("NVIDIA A, B", GIB)]


@pytest.mark.parametrize(
    ("script", "gpus"),
    [("echo 'NVIDIA L40, 46068'; echo 'NVIDIA L40, 46068'", 2), ("exit 9", 0), (None, 0)],
)
def test_driver_is_asked_for_gpus(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str | None, gpus: int
) -> None:
    """One that fails, or is not there, has none."""
    if script is not None:
        program = tmp_path / "nvidia-smi"
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    found = read_machine(tmp_path)
    assert (found.gpus, found.vram_bytes) == (gpus, gpus * 46068 * 2**20)


def test_gpus_are_those_of_drivers_where_no_tool_lists_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One of NVIDIA and one of AMD, whose other node is a CPU."""
    (tmp_path / "proc/driver/nvidia/gpus/0000:01:00.0").mkdir(parents=True)
    for node, gpu_id in enumerate(("0", "51110")):
        folder = tmp_path / f"sys/class/kfd/kfd/topology/nodes/{node}"
        folder.mkdir(parents=True)
        (folder / "gpu_id").write_text(f"{gpu_id}\n")
    monkeypatch.setattr(machine, "_ask_driver", lambda: "")
    found = read_machine(tmp_path)
    assert (found.gpus, found.vram_bytes) == (2, 0)


def test_control_groups_limit_what_a_host_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half a core and a gigabyte, whatever the machine has."""
    group = tmp_path / "sys/fs/cgroup/job"
    group.mkdir(parents=True)
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/cgroup").write_text("0::/job\n")
    (group.parent / "cgroup.controllers").write_text("cpu memory\n")
    files = {"memory.max": GIB, "memory.current": 1, "memory.stat": "inactive_file 0"}
    files |= {"cpu.max": "50000 100000", "cpu.stat": "usage_usec 1"}
    for name, value in files.items():
        (group / name).write_text(f"{value}\n")
    monkeypatch.setattr(machine, "_ask_driver", lambda: "NVIDIA L40, 46068\n")
    found = read_machine(tmp_path)
    assert (found.ram_bytes, found.cores, found.gpus) == (GIB, 0.5, 1)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"memory_critical_pct": 0.001}, r"\d+ % of memory is in use, 0.001 % is critical"),
        ({"disk_critical_pct": 0.001}, r"\d+ % of the disk is full, 0.001 % is critical"),
        ({"disk_free": "9000TB"}, r"[\d.]+ GB of the disk are free, `disk_free` is 9000TB"),
        ({"disk_free": "1KB"}, ""),
        ({"memory_critical_pct": None}, ""),
    ],
)
def test_short_host_says_of_what(tmp_path: Path, options: dict[str, Any], words: str) -> None:
    """In one look, for a folder that need not be there."""
    config = ThresholdConfig(**{"memory_warn_pct": None, "memory_critical_pct": 100.0, **options})
    assert re.fullmatch(words, shortage(config, tmp_path / "new" / "run"))
