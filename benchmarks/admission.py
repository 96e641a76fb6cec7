"""How long the registry takes to answer, beside one bare write to such a file."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import sqlite3
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from lightning_elche.coordination.registry.database import Database
from lightning_elche.coordination.registry.limits import LimitsConfig
from lightning_elche.coordination.registry.registry import Registry
from lightning_elche.coordination.registry.request import Request

BUSY_S = 30.0
SLOTS = 3
T = TypeVar("T")

REQUEST = {"kind": "train", "host": "a", "run": "r"}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--processes", type=int, default=16)
    parser.add_argument("--seconds", type=float, default=5.0, help="of each row of many processes")
    parser.add_argument("--repeats", type=int, default=1000, help="of each row of one process")
    options = parser.parse_args()
    one_process(options.repeats)
    many_processes(options.processes, options.seconds)


def one_process(repeats: int) -> None:
    """Print how long each question takes by itself, for some numbers of leases."""
    print(f"{'one process':44}{'p50 ms':>9}{'p99 ms':>9}{'x write':>9}")
    with tempfile.TemporaryDirectory() as folder:
        unit = print_row("bare write", bare_writes(Path(folder) / "bare.db", repeats))
        for held in (0, 3, 32, 500):
            registry = registry_at(Path(folder) / f"{held}.db", slots=10_000)
            for _ in range(held):
                registry.admit(Request(**REQUEST))
            rounds = [ask_once(registry) for _ in range(repeats if held < 100 else repeats // 10)]
            admits, beats, releases = (list(waits) for waits in zip(*rounds, strict=True))
            print_row(f"admit beside {held} leases", admits, unit)
            if held == 3:
                print_row("heartbeat", beats, unit)
                print_row("release", releases, unit)


def ask_once(registry: Registry) -> tuple[float, float, float]:
    """Return how long it takes to get a lease, to tell that one lives, and to give it back."""
    decision, admit_ms = timed(lambda: registry.admit(Request(**REQUEST)))
    lease = decision.lease
    assert lease is not None
    _, beat_ms = timed(lambda: registry.heartbeat(lease.id))
    _, release_ms = timed(lambda: registry.release(lease.id, succeeded=True))
    return admit_ms, beat_ms, release_ms


def many_processes(count: int, seconds: float) -> None:
    """Print how long it takes while others ask as well."""
    print(f"\n{f'{count} processes, {SLOTS} leases':44}{'p50 ms':>9}{'p99 ms':>9}{'per s':>9}")
    contenders: dict[str, Callable[[Path], Callable[[random.Random], float]]] = {
        "admit": admitting,
        "bare write, waiting as SQLite does": writing,
    }
    for name, prepare in contenders.items():
        with tempfile.TemporaryDirectory() as folder:
            waits = contend(Path(folder), count, seconds, prepare)
        print(f"{name:44}{quantile(waits, 0.5):9.3f}{quantile(waits, 0.99):9.3f}", end="")
        print(f"{len(waits) / seconds:9.0f}")


def contend(
    folder: Path,
    count: int,
    seconds: float,
    prepare: Callable[[Path], Callable[[random.Random], float]],
) -> list[float]:
    """Return what `count` forked processes have measured, each one call after the other."""
    prepare(folder / "registry.db")  # to make the file is not measured
    pids = []
    until_s = time.monotonic() + seconds
    for seed in range(count):
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                draw, call, waits = random.Random(seed), prepare(folder / "registry.db"), []
                while time.monotonic() < until_s:
                    waits.append(call(draw))
                    time.sleep(draw.uniform(0.0, 0.01))
                (folder / f"{seed}.json").write_text(json.dumps(waits))
                code = 0
            except BaseException:  # a child must not go on as its parent
                traceback.print_exc()
            finally:
                os._exit(code)
        pids.append(pid)
    codes = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids]
    if any(codes):
        raise SystemExit(f"Processes ended with {codes}.")
    return [wait for path in folder.glob("*.json") for wait in json.loads(path.read_text())]


def admitting(path: Path) -> Callable[[random.Random], float]:
    """Return a call that asks, and holds the lease for a while if it gets one."""
    registry = registry_at(path, slots=SLOTS)

    def call(draw: random.Random) -> float:
        decision, took = timed(lambda: registry.admit(Request(**REQUEST)))
        if decision.lease is not None:
            time.sleep(draw.uniform(0.0, 0.005))
            registry.release(decision.lease.id, succeeded=True)
        return took

    return call


def writing(path: Path) -> Callable[[random.Random], float]:
    """Return a call that makes one write."""
    connection = bare_connection(path)
    return lambda _: timed(lambda: bare_write(connection))[1]


def bare_writes(path: Path, repeats: int) -> list[float]:
    """Return how long writes of one row take."""
    with contextlib.closing(bare_connection(path)) as connection:
        return [timed(lambda: bare_write(connection))[1] for _ in range(repeats)]


def bare_connection(path: Path) -> sqlite3.Connection:
    """Open a file as the registry's is, with a table."""
    connection = sqlite3.connect(path, timeout=BUSY_S, isolation_level=None)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = NORMAL")
    connection.execute("CREATE TABLE IF NOT EXISTS row (at REAL)")
    return connection


def bare_write(connection: sqlite3.Connection) -> None:
    """Write a row."""
    connection.execute("BEGIN IMMEDIATE")
    connection.execute("INSERT INTO row VALUES (?)", (time.time(),))
    connection.execute("COMMIT")


def registry_at(path: Path, *, slots: int) -> Registry:
    """Return a registry that refuses for no other reason than its slots."""
    limits = LimitsConfig(
        per_host={"train": slots},
        cluster={"train": None},
        rate_per_min=1e9,
        burst=10**9,
        window_max=10**9,
        cooldown_s=0.0,
    )
    return Registry(Database(path), limits=limits, busy_s=BUSY_S)


def timed(call: Callable[[], T]) -> tuple[T, float]:
    """Return what a call returns, and the milliseconds that it took."""
    began_s = time.perf_counter()
    value = call()
    return value, 1000.0 * (time.perf_counter() - began_s)


def print_row(name: str, waits: list[float], unit: float | None = None) -> float:
    """Print a row, and return its median."""
    p50, p99 = quantile(waits, 0.5), quantile(waits, 0.99)
    print(f"{name:44}{p50:9.3f}{p99:9.3f}{p50 / (unit or p50):9.1f}")
    return p50


def quantile(values: list[float], part: float) -> float:
    """Return the value that this part of them does not exceed."""
    return sorted(values)[int(part * (len(values) - 1))]


if __name__ == "__main__":
    main()
