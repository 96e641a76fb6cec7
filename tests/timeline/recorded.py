"""Runs that were never trained: real event logs, written on a clock that the test moves."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightning_elche.timeline.events import EventLog

MS = 10**6
S = 10**9


class Clock:
    """Nanoseconds that pass only when told."""

    def __init__(self, now_ns: int = 0) -> None:
        self.now_ns = now_ns

    def __call__(self) -> int:
        return self.now_ns


@dataclass(frozen=True, kw_only=True)
class Share:
    """How a rank spends a second between two averages, in milliseconds; the rest are hooks."""

    compute: int = 900
    input: int = 0
    wait: int = 20
    transfer: int = 30
    samples_per_s: float = 40.0


def header_of(rank: int, world: int, **more: Any) -> dict[str, Any]:
    return {
        "run": "r1",
        "fingerprint": "f1",
        "strategy": "ElCheStrategy",
        "rank": rank,
        "world": world,
        "host": "box",
        "boot": "b1",
        "pid": 100 + rank,
        "device": "cpu",
        "versions": {},
        **more,
    }


def open_log(folder: Path, rank: int, world: int, clock: Clock, **more: Any) -> EventLog:
    """A log of rank `rank`; the wall clock is a day ahead of the monotonic one."""
    return EventLog(
        folder / "elche" / "events",
        rank=rank,
        header=header_of(rank, world, **more),
        clock_ns=clock,
        wall_ns=lambda: clock.now_ns + 86_400 * S,
    )


def record_second(log: EventLog, clock: Clock, index: int, share: Share, **window: Any) -> None:
    """Let a second pass, with a window and an averaging event at its end."""
    begun_ns, arrived_ns = clock.now_ns, clock.now_ns + S - (share.wait + share.transfer) * MS
    log.span(
        "window",
        begun_ns,
        arrived_ns - begun_ns,
        index=index,
        batches=10,
        samples=40,
        skipped=0,
        compute_ns=share.compute * MS,
        input_ns=share.input * MS,
        throttle_ns=0,
        wait_ns=0,
        hooks_ns=0,
        device_ns=None,
        **window,
    )
    clock.now_ns += S
    if share.wait:
        log.span("average_wait", arrived_ns, share.wait * MS, index=index)
    left_ns = clock.now_ns
    log.span("average_transfer", left_ns - share.transfer * MS, share.transfer * MS, index=index)
    log.clock(left_ns, average=index)
    log.instant("average", index=index, wait_ns=share.wait * MS, transfer_ns=share.transfer * MS)
    log.counter(
        "rank", samples_per_s=share.samples_per_s, share=0.5, anchor=8 + index // 4, duty=1.0
    )


def record_run(
    folder: Path, *, seconds: int = 6, shares: tuple[Share, ...] = (Share(), Share()), **more: Any
) -> Path:
    """Record a run of a start of half a second and a number of seconds."""
    for rank, share in enumerate(shares):
        clock = Clock(S)
        log = open_log(folder, rank, len(shares), clock, **more)
        log.span("startup", clock.now_ns, S // 2)
        clock.now_ns += S // 2
        for index in range(seconds):
            record_second(log, clock, index, share)
            if rank == 0 and index == 3:
                log.instant("anchor", **{"from": 8, "to": 9, "reason": "overhead 0.140"})
        log.close()
    return folder
