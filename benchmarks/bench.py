"""Runs a row of the benchmark: which ranks, how many batches, in which surroundings."""

from __future__ import annotations

import json
import os
import socket
import sys
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

from processes import Command, run_together
from rate_limit import Host
from report import DDP, ELCHE, RAW, SIDE_BY_SIDE, SOLO

HERE = Path(__file__).resolve().parent
EXAMPLES = HERE.parent / "examples"  # `slow_rank.py` is there
EPOCHS = 3  # the first is the warm-up
MIN_BATCHES = 8  # of an epoch
PROBE_BATCHES = 30  # of an epoch of the run that finds out how fast this machine is


# glibc gives memory back to the kernel and asks for it again: in some processes at every step, in
# others never, as their heaps lie. It took up to 6 ms of a step of 20 ms. Here all of them keep it.
KEEP_MEMORY = {
    "MALLOC_MMAP_THRESHOLD_": str(2**30),
    "MALLOC_TRIM_THRESHOLD_": str(2**31),
    "MALLOC_TOP_PAD_": str(2**26),
}


class Run(TypedDict):
    """The result of a run: what all ranks did after the warm-up, and details of the strategy."""

    samples: int
    batches: int
    seconds: float
    samples_per_s: float
    details: dict[str, object]


@dataclass(frozen=True, kw_only=True)
class Plan:
    """One run.

    Attributes:
        name: Its name in the results.
        mode: What the worker does.
        ranks: Which of the two ranks take part.
        batches: Batches of an epoch of each rank; over all ranks where they train together.
    """

    name: str
    mode: str
    ranks: tuple[int, ...]
    batches: tuple[int, ...]

    @property
    def together(self) -> bool:
        """Whether the ranks are one training rather than one each."""
        return len(self.ranks) > 1 and self.mode != "solo"


def runs_of(modes: Collection[str], *, batches: int, quota: float) -> list[Plan]:
    """Return the runs of one repeat, each of about the same duration.

    Args:
        modes: What to measure beside the ranks alone.
        batches: What the fast rank trains in one epoch.
        quota: Speed of the slow rank as a part of that of the fast one.
    """
    relative = (1.0, quota)
    plans: list[tuple[str, str, tuple[int, ...], tuple[float, ...]]] = [
        (name, "solo", (rank,), (relative[rank],)) for rank, name in enumerate(SOLO)
    ]
    plans.append((SIDE_BY_SIDE, "solo", (0, 1), relative))
    if "raw" in modes:
        plans += [(name, "raw", (rank,), (relative[rank],)) for rank, name in enumerate(RAW)]
    if DDP in modes:
        plans.append((DDP, DDP, (0, 1), (2.0 * quota,) * 2))  # both go at the slow rank's speed
    if ELCHE in modes:
        plans.append((ELCHE, ELCHE, (0, 1), (1.0 + quota,) * 2))
    return [
        Plan(
            name=name,
            mode=mode,
            ranks=ranks,
            batches=tuple(max(MIN_BATCHES, round(batches * part)) for part in parts),
        )
        for name, mode, ranks, parts in plans
    ]


@dataclass(frozen=True, kw_only=True)
class Bench:
    """Where the ranks run.

    Attributes:
        cores: The core of each rank.
        slow: Arguments of the worker that make rank 1 slow.
        hosts: The network namespace of each rank; `None` for this process's own.
        folder: For logs and results.
        timeout_s: Longest duration of a run.
    """

    cores: tuple[int, int]
    slow: tuple[str, ...]
    hosts: tuple[Host, Host] | None
    folder: Path
    timeout_s: float

    def batches_in(self, seconds: float) -> int:
        """Return how many batches of an epoch let the fast rank alone train for `seconds`."""
        probe = Plan(name="probe", mode="raw", ranks=(0,), batches=(PROBE_BATCHES,))
        run = self.measure(probe)
        return round(run["batches"] / run["seconds"] * seconds / EPOCHS)

    def measure(self, plan: Plan) -> Run:
        """Run the plan and return its result."""
        results = [self.folder / f"result{rank}.json" for rank in plan.ranks]
        for result in results:
            result.unlink(missing_ok=True)
        environment = joint_environment(self.hosts) if plan.together else {}
        commands = [
            self._command(plan, rank, batches, environment, result)
            for rank, batches, result in zip(plan.ranks, plan.batches, results, strict=True)
        ]
        run_together(commands, timeout_s=self.timeout_s, folder=self.folder)
        first, *others = (read_run(result) for result in results)
        if not plan.together:
            first["samples_per_s"] += sum(other["samples_per_s"] for other in others)
        return first

    def _command(
        self,
        plan: Plan,
        rank: int,
        batches: int,
        environment: Mapping[str, str],
        result: Path,
    ) -> Command:
        own = worker_environment()
        arguments = [sys.executable, str(HERE / "worker.py"), "--mode", plan.mode]
        arguments += ["--batches", str(batches), "--epochs", str(EPOCHS)]
        arguments += ["--result", str(result)]
        if rank == 1:
            arguments += self.slow
        if environment:
            own |= {**environment, "RANK": str(rank), "LOCAL_RANK": str(rank)}
        if environment and self.hosts:
            own["GLOO_SOCKET_IFNAME"] = self.hosts[rank].interface
            arguments = [*self.hosts[rank].prefix, *arguments]
        return Command(arguments=arguments, environment=own, core=self.cores[rank])


def read_run(file: Path) -> Run:
    """Return what a worker wrote."""
    run: Run = json.loads(file.read_text())
    return run


def worker_environment() -> dict[str, str]:
    """Return what every worker needs: one thread, its memory, and where its modules are."""
    paths = [str(EXAMPLES), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(paths), **KEEP_MEMORY}


def joint_environment(hosts: tuple[Host, Host] | None) -> dict[str, str]:
    """Return what tells two workers of each other, as torchrun does."""
    address = hosts[0].address if hosts else "127.0.0.1"
    return {
        "MASTER_ADDR": address,
        "MASTER_PORT": str(free_port()),
        "WORLD_SIZE": "2",
        "NODE_RANK": "0",
    }


def free_port() -> int:
    """Return a port that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("", 0))
        port: int = probe.getsockname()[1]
        return port
