"""What one of eight ranks records that average once a second, as long as it may be."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

from lightning_elche.timeline.events import EventLog
from tests.timeline.recorded import MS, Clock, S, open_log

__all__ = ["PER_HOST", "WORLD", "Day"]

WORLD, PER_HOST = 8, 4
EPOCH_S, ANCHOR_S = 600, 1800


class Day:
    """What one rank records, with numbers that are as hard to compress as real ones."""

    def __init__(self, folder: Path, rank: int) -> None:
        self.rank, self.own, self.shared = rank, random.Random(rank), random.Random(-1)
        self.clock = Clock(S)
        host, gpu = divmod(rank, PER_HOST)
        self.log: EventLog = open_log(
            folder,
            rank,
            WORLD,
            self.clock,
            host=f"box{host}",
            boot=f"b{host}",
            device=f"cuda:{gpu} NVIDIA H100",
        )
        self.anchor, self.steps = 8, 0

    def record(self, seconds: int) -> None:
        """Write the whole of it."""
        self.log.span("startup", self.clock.now_ns, 30 * S)
        self.clock.now_ns += 30 * S
        for index in range(seconds):
            self.second(index)
            if index % ANCHOR_S == ANCHOR_S - 1:
                self.change_anchor()
            if index % EPOCH_S == EPOCH_S - 1:
                self.end_epoch(index // EPOCH_S)
            if index % 1000 == 0:
                self.log.write()
        self.log.close()

    def second(self, index: int) -> None:
        """Write a window, an averaging event, and how busy the machine is."""
        own, log, begun_ns = self.own, self.log, self.clock.now_ns
        period_ns = int(self.shared.gauss(1.0, 0.03) * S)
        wait_ns, transfer_ns = int(own.uniform(1, 30) * MS), int(own.gauss(12, 2) * MS)
        arrived_ns = begun_ns + period_ns - wait_ns - transfer_ns
        batches = own.randint(9, 14)
        self.steps += batches
        self.window(index, batches, begun_ns, arrived_ns - begun_ns)
        self.clock.now_ns += period_ns
        log.span("average_wait", arrived_ns, wait_ns, index=index)
        log.span("average_transfer", self.clock.now_ns - transfer_ns, transfer_ns, index=index)
        log.clock(self.clock.now_ns, average=index)
        log.instant(
            "average",
            index=index,
            epoch=index // EPOCH_S,
            global_step=self.steps,
            wait_ns=wait_ns,
            transfer_ns=transfer_ns,
            bytes=own.randint(4_000_000, 4_100_000),
        )
        log.counter(
            "rank",
            samples_per_s=round(4 * batches * S / period_ns, 3),
            share=round(own.gauss(0.125, 0.004), 4),
            anchor=self.anchor,
            duty=1.0,
        )
        if self.rank % PER_HOST == 0:
            log.counter("host", **self.sample())

    def window(self, index: int, batches: int, begun_ns: int, duration_ns: int) -> None:
        """Write what the steps took."""
        own = self.own
        compute_ns = int(duration_ns * own.uniform(0.9, 0.97))
        input_ns = int((duration_ns - compute_ns) * own.uniform(0.1, 0.9))
        step_ns = compute_ns // batches
        self.log.span(
            "window",
            begun_ns,
            duration_ns,
            index=index,
            samples=4 * batches,
            skipped=0,
            throttle_ns=0,
            wait_ns=0,
            device_ns=compute_ns,
            batches=batches,
            compute_ns=compute_ns,
            input_ns=input_ns,
            step_ns={
                "min": step_ns - own.randint(0, MS),
                "median": step_ns,
                "p95": step_ns + own.randint(0, MS),
                "max": step_ns + own.randint(MS, 5 * MS),
            },
            hooks_ns=duration_ns - compute_ns - input_ns,
        )

    def sample(self) -> dict[str, Any]:
        """Return how busy a machine of four GPUs is."""
        own = self.own
        return {
            "cpu": round(own.uniform(20, 60), 1),
            "memory": round(own.uniform(40, 50), 1),
            "disk": 61.5,
            "gpu": [own.randint(60, 100) for _ in range(PER_HOST)],
            "vram": [own.randint(20 << 30, 30 << 30) for _ in range(PER_HOST)],
        }

    def change_anchor(self) -> None:
        """Raise it by one."""
        before, self.anchor = self.anchor, self.anchor + 1
        if self.rank == 0:
            change = {"from": before, "to": self.anchor, "reason": "overhead 0.140"}
            self.log.instant("anchor", **change)

    def end_epoch(self, epoch: int) -> None:
        """Validate and save."""
        for kind, seconds in (("validation", 5), ("checkpoint", 2)):
            self.log.span(kind, self.clock.now_ns, seconds * S)
            self.clock.now_ns += seconds * S
        self.log.instant("validation_end", epoch=epoch)
        if self.rank == 0:
            self.log.instant("checkpoint_saved", path=f"checkpoints/epoch={epoch}.ckpt")
