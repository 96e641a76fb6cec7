"""Two ranks, one of them slow: the options, the words and the means that benchmarks share.

Rank 0 has a core of its own. Rank 1 has another, of which a control group gives it a part; without
the right to make one it sleeps after each step instead.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
from collections.abc import Iterator

from cpu_group import can_limit, cpu_group


def add_quota_option(parser: argparse.ArgumentParser) -> None:
    """Add how slow rank 1 is."""
    whole = "part of its core that the slow rank gets"
    parser.add_argument("--quota", type=quota, default=0.25, help=whole)


def quota(text: str) -> float:
    """Return the part of a core that `text` stands for."""
    value = float(text)
    if not 0.01 <= value <= 1.0:
        raise argparse.ArgumentTypeError(f"must be a part between 0.01 and 1, got {text}")
    return value


def check_cores(parser: argparse.ArgumentParser) -> None:
    """Refuse to measure ranks that would take each other's core."""
    if len(os.sched_getaffinity(0)) < 2:
        parser.error("each of the two ranks needs a core of its own, this process may use one")


def cores() -> tuple[int, int]:
    """Return the core of each rank."""
    first, second, *_ = sorted(os.sched_getaffinity(0))
    return first, second


def describe(part: float) -> str:
    """Return how slow rank 1 is when it gets `part` of a core."""
    how = "by a control group" if can_limit() else "by sleeping, as no control group can be made"
    return "as fast as rank 0" if part == 1.0 else f"{part:.1%} of a core {how}"


@contextlib.contextmanager
def slowed(part: float) -> Iterator[tuple[str, ...]]:
    """Make what gives rank 1 `part` of a core, and remove it in the end.

    Yields:
        The arguments of the worker that make it slow.
    """
    if part == 1.0:
        yield ()
    elif can_limit():
        with cpu_group(part) as procs:
            yield ("--cgroup-procs", str(procs))
    else:
        yield ("--factor", str(1.0 / part))


def clean_up_on_sigterm() -> None:
    """End by SIGTERM as by Ctrl-C, so that groups and namespaces are removed."""
    signal.signal(signal.SIGTERM, _leave)


def _leave(signum: int, frame: object) -> None:
    del frame
    raise SystemExit(128 + signum)
