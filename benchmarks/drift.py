"""A slow rank whose speed changes while it trains."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from statistics import fmean

from bench import EPOCHS, Bench, Run
from cpu_group import set_quota
from plans import Plan
from report import SOLO

POLL_S = 0.02


@dataclass(frozen=True, kw_only=True)
class Drift:
    """How the speed of the slow rank changes in each run.

    Attributes:
        group: The control group of the slow rank.
        quotas: What the group gets, one after the other.
        seconds: About how long a run takes; each quota gets the same part of it.
    """

    group: Path
    quotas: tuple[float, ...]
    seconds: float

    def measure(self, bench: Bench, plan: Plan, results: Mapping[str, Run]) -> Run:
        """Run the plan; the slow rank alone at each quota, all others while it changes.

        Args:
            bench: Where.
            plan: What.
            results: Those of the ranks alone, if they are not what is measured.
        """
        if plan.ranks == (0,):
            return bench.measure(plan)
        if plan.ranks == (1,):
            return self._measure_alone(bench, plan)
        moments = moments_of(len(self.quotas), seconds=self.seconds)
        with drifting(self.group, self.quotas, moments, begun=bench.begun) as changed:
            run = bench.measure(plan)
        fast, slow = (results[name] for name in SOLO)
        shares = time_shares(changed, begun=run["begun"], ended=run["ended"])
        run["samples_per_s"] = evened(
            run["samples_per_s"],
            fast=fast["samples_per_s"],
            slow=slow["samples_per_s_at"],
            shares=shares,
        )
        return run | {"quota_shares": shares}

    def _measure_alone(self, bench: Bench, plan: Plan) -> Run:
        speeds = []
        for quota in self.quotas:
            set_quota(self.group, quota)
            run = bench.measure(plan)
            speeds.append(run["samples_per_s"])
        run["samples_per_s"] = fmean(speeds)
        return run | {"samples_per_s_at": speeds}


def moments_of(num_quotas: int, *, seconds: float) -> list[float]:
    """Return the seconds from the end of the warm-up to when each quota but the last ends."""
    part_s = seconds * (EPOCHS - 1) / EPOCHS / num_quotas
    return [part_s * number for number in range(1, num_quotas)]


@contextmanager
def drifting(
    group: Path, quotas: Sequence[float], moments: Sequence[float], *, begun: Path
) -> Iterator[list[float]]:
    """Give a group one quota after the other.

    Args:
        group: The control group.
        quotas: What it gets.
        moments: Seconds until each quota but the first.
        begun: The file from whose appearance these count.

    Yields:
        The times of `time.monotonic` at which the quota has changed so far.
    """
    changed: list[float] = []
    is_over = threading.Event()

    def change() -> None:
        while not begun.exists():
            if is_over.wait(POLL_S):
                return
        origin = time.monotonic()
        for quota, moment in zip(quotas[1:], moments, strict=True):
            if is_over.wait(max(0.0, origin + moment - time.monotonic())):
                return
            set_quota(group, quota)
            changed.append(time.monotonic())

    begun.unlink(missing_ok=True)  # that of the run before
    set_quota(group, quotas[0])
    thread = threading.Thread(target=change)
    thread.start()
    try:
        yield changed
    finally:
        is_over.set()
        thread.join()


def time_shares(changed: Sequence[float], *, begun: float, ended: float) -> list[float]:
    """Return which part of the time from `begun` to `ended` each quota had that came up."""
    borders = [begun, *(min(max(moment, begun), ended) for moment in changed), ended]
    return [(after - before) / (ended - begun) for before, after in pairwise(borders)]


def evened(speed: float, *, fast: float, slow: Sequence[float], shares: Sequence[float]) -> float:
    """Return the speed as if each quota had had the same part of the time.

    It is the same part of the sum of both ranks alone, which changes with the quota.

    Args:
        speed: What was measured.
        fast: Speed of the fast rank alone.
        slow: Speed of the slow rank alone, at each quota.
        shares: Which part of the time each quota had; none for those that did not come up.
    """
    then = fast + sum(share * alone for share, alone in zip(shares, slow, strict=False))
    return speed * (fast + sum(slow) / len(slow)) / then
