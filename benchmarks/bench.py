"""Runs a row of the benchmark in its surroundings: cores, a slow rank, a link."""

from __future__ import annotations

import json
import os
import socket
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

from plans import Pace, Plan
from processes import Command, run_together
from rate_limit import Host
from typing_extensions import NotRequired

HERE = Path(__file__).resolve().parent
EXAMPLES = HERE.parent / "examples"  # `slow_rank.py` is there
EPOCHS = 3  # the first is the warm-up
PROBE_BATCHES = 30  # of an epoch of the run that finds out how fast this machine is

# glibc gives memory back to the kernel and asks for it again: in some processes at every step, in
# others never, as their heaps lie. It took up to 6 ms of a step of 20 ms. Here all of them keep it.
KEEP_MEMORY = {
    "MALLOC_MMAP_THRESHOLD_": str(2**30),
    "MALLOC_TRIM_THRESHOLD_": str(2**31),
    "MALLOC_TOP_PAD_": str(2**26),
}


class Run(TypedDict):
    """The result of a run: what all ranks did after the warm-up, and details of the row.

    It began and ended at these times of the clock `time.monotonic`.
    """

    samples: int
    batches: int
    seconds: float
    samples_per_s: float
    model_bytes: int
    begun: float
    ended: float
    details: dict[str, object]
    samples_per_s_at: NotRequired[list[float]]  # of the slow rank alone, at each quota of a drift
    quota_shares: NotRequired[list[float]]  # part of the time that each quota of a drift had


@dataclass(frozen=True, kw_only=True)
class Bench:
    """Where the ranks run.

    Attributes:
        workload: What the ranks train.
        cores: The core of each rank.
        slow: Arguments of the worker that make rank 1 slow.
        hosts: The network namespace of each rank; `None` for this process's own.
        link_mbit: Mbit/s of the link between them, if it is limited.
        folder: For logs and results.
        timeout_s: Longest duration of a run.
    """

    workload: str
    cores: tuple[int, int]
    slow: tuple[str, ...]
    hosts: tuple[Host, Host] | None
    link_mbit: float | None
    folder: Path
    timeout_s: float

    @property
    def begun(self) -> Path:
        """The file that is there once the warm-up of rank 0 is over."""
        return self.folder / "result0.begun"

    def pace(self, *, seconds: float, quotas: tuple[float, ...]) -> Pace:
        """Return the pace at which the fast rank alone trains for `seconds`."""
        run = self.measure(Plan(name="probe", mode="raw", ranks=(0,), batches=(PROBE_BATCHES,)))
        batch_s = run["seconds"] / run["batches"]
        exchange_s = 8e-6 * run["model_bytes"] / self.link_mbit if self.link_mbit else 0.0
        return Pace(
            batches=round(seconds / batch_s / EPOCHS),
            quotas=quotas,
            exchange_batches=exchange_s / batch_s,
        )

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
        return joint_run(plan, [read_run(result) for result in results])

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
        arguments += ["--workload", self.workload, "--result", str(result)]
        arguments += ["--batches", str(batches), "--epochs", str(EPOCHS)]
        if plan.local_steps:
            arguments += ["--local-steps", str(plan.local_steps[rank])]
        if rank == 1:
            arguments += self.slow
        if environment:
            own |= {**environment, "RANK": str(rank), "LOCAL_RANK": str(rank)}
            own["HOST_ADDRESS"] = environment["MASTER_ADDR"]
        if environment and self.hosts:
            own["HOST_ADDRESS"] = self.hosts[rank].address
            own["GLOO_SOCKET_IFNAME"] = self.hosts[rank].interface
            arguments = [*self.hosts[rank].prefix, *arguments]
        return Command(arguments=arguments, environment=own, core=self.cores[rank])


def joint_run(plan: Plan, runs: Sequence[Run]) -> Run:
    """Return what all ranks did: over the time of the first, if they trained together."""
    run = runs[0].copy()
    if not plan.together:
        run["samples_per_s"] = sum(own["samples_per_s"] for own in runs)
    elif not plan.shares_batches:
        run["samples"] = sum(own["samples"] for own in runs)
        run["batches"] = sum(own["batches"] for own in runs)
        run["samples_per_s"] = run["samples"] / run["seconds"]
    return run


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
