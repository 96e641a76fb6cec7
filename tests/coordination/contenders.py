"""Processes that start tasks as fast as they can, some of which are killed, and a referee.

Run as a script it prints what the referee has seen, and imports nothing heavy.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
from pathlib import Path

from lightning_elche.coordination.breaker import BreakerConfig
from lightning_elche.coordination.registry.database import Database
from lightning_elche.coordination.registry.limits import LimitsConfig
from lightning_elche.coordination.registry.registry import Registry
from lightning_elche.coordination.registry.request import Decision, Request

LIMIT = 3
STOP = "stop"  # a file: what was to be seen was seen
LIMITS = LimitsConfig(
    per_host={"train": LIMIT},
    cluster={"train": None},
    rate_per_min=1e9,
    burst=10**9,
    cooldown_s=0.0,
    window_max=10**9,
)


class TwoTransactions(Registry):
    """Counts in one transaction and inserts in the next one."""

    def admit(self, request: Request) -> Decision:
        decision = self.why(request)
        if not decision.allowed:
            return decision
        time.sleep(0.001)  # whatever a process does in between
        with self._session() as session:
            return self._give(session, self._desk(session, request))


class Log:
    """Lines of all processes, in the order in which they were written."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    def write(self, *words: object) -> None:
        os.write(self._file, (" ".join(map(str, words)) + "\n").encode())


def judge(lines: list[str]) -> dict[str, int]:
    """Return how many tasks there were, how many too many, and most at once.

    A task writes `begin` after it was admitted and `end` before it gives its lease back, so that
    it never seems to run longer than it does. Of a process that is about to be killed, nothing
    counts any more.
    """
    running: dict[str, str] = {}
    killed: set[str] = set()
    seen = {"begun": 0, "too_many": 0, "most": 0, "killed": 0, "killed_running": 0}
    for line in lines:
        word, pid = line.split()
        if word == "kill":
            killed.add(pid)
            seen["killed"] += 1
            seen["killed_running"] += running.pop(pid, None) is not None
        elif word == "end":
            running.pop(pid, None)
        elif pid not in killed:
            running[pid] = line
            seen["begun"] += 1
            seen["too_many"] += len(running) > LIMIT
            seen["most"] = max(seen["most"], len(running))
    return seen


def contend(registry: Registry, log: Log, until_s: float, seed: int) -> None:
    """Start one task after the other."""
    draw = random.Random(seed)
    waits_ms = []
    stop = registry.database.path.parent / STOP
    while time.monotonic() < until_s and not stop.exists():
        began_s = time.perf_counter()
        decision = registry.admit(Request(kind="train", host="a"))
        waits_ms.append(1000.0 * (time.perf_counter() - began_s))
        if decision.lease is None:
            time.sleep(draw.uniform(0.0, 0.01))
            continue
        log.write("begin", os.getpid())
        time.sleep(draw.uniform(0.0, 0.005))
        log.write("end", os.getpid())
        registry.release(decision.lease.id, succeeded=True)
        time.sleep(draw.uniform(0.0, 0.01))
    path = registry.database.path.parent / f"waits-{os.getpid()}.json"
    path.write_text(json.dumps(waits_ms))


def fork(registry: Registry, log: Log, until_s: float, seed: int) -> int:
    pid = os.fork()
    if pid == 0:
        try:
            contend(registry, log, until_s, seed)
        except BaseException as err:  # must not go on as the parent
            print(repr(err), file=sys.stderr, flush=True)
            os._exit(1)
        os._exit(0)
    return pid


def main(folder: Path, kind: str, num_processes: int, num_kills: int, seconds: float) -> None:
    database = Database(folder / "registry.db")
    make = Registry if kind == "registry" else TwoTransactions
    registry = make(database, limits=LIMITS, breaker=BreakerConfig(failures=10**6))
    log, draw = Log(folder / "log"), random.Random(0)
    begun_s = time.monotonic()
    until_s = begun_s + seconds
    pids = [fork(registry, log, until_s, seed) for seed in range(num_processes)]
    for kill in range(num_kills):
        time.sleep(max(0.0, begun_s + seconds * (kill + 1) / (num_kills + 1) - time.monotonic()))
        holders = [lease.process.pid for lease in registry.leases() if kill % 2]
        victim = draw.choice([pid for pid in holders if pid in pids] or pids)
        pids.remove(victim)
        log.write("kill", victim)
        os.kill(victim, signal.SIGKILL)
        os.waitpid(victim, 0)
        pids.append(fork(registry, log, until_s, 100 + kill))
    while isinstance(registry, TwoTransactions) and time.monotonic() < until_s:
        time.sleep(0.05)
        if judge((folder / "log").read_text().splitlines())["too_many"]:
            (folder / STOP).touch()
            break
    codes = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids]
    waits = sorted(
        wait for path in folder.glob("waits-*.json") for wait in json.loads(path.read_text())
    )
    seen: dict[str, object] = dict(judge((folder / "log").read_text().splitlines()))
    seen |= {"failed": sum(code != 0 for code in codes), "asked": len(waits)}
    seen["left"] = len(registry.leases())
    seen |= {f"p{p}_ms": round(waits[int(p / 100 * (len(waits) - 1))], 3) for p in (50, 99)}
    print(json.dumps(seen))


if __name__ == "__main__":
    place, which, processes, kills, for_s = sys.argv[1:]
    main(Path(place), which, int(processes), int(kills), float(for_s))
