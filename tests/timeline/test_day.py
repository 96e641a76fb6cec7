"""A day of eight ranks that average once a second is read, drawn and reported in little memory."""

from __future__ import annotations

import gzip
import json
import resource
import shutil
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from tests.timeline.day import PER_HOST, WORLD, Day
from tests.timeline.test_trace import SCHEMA

pytestmark = [pytest.mark.soak, pytest.mark.timeout(1800)]

DAY_S = 86_400
MIB = 1 << 20


@dataclass(frozen=True)
class Told:
    """Where the files are, and what making them took."""

    trace: Path
    page: Path
    out: str
    num_records: int
    cpu_s: float
    peak_bytes: int


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Told:
    """What `elche timeline` made of the day, in a process of its own."""
    folder = tmp_path_factory.mktemp("day")
    for rank in range(WORLD):
        Day(folder / "run", rank).record(DAY_S)
    trace, page = folder / "trace.json.gz", folder / "page.html"
    main = "import sys; from lightning_elche.cli.main import main; sys.exit(main(sys.argv[1:]))"
    arguments = ("timeline", folder / "run", "-o", trace, "--html", page)
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        [sys.executable, "-c", main, *map(str, arguments)],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        timeout=1200,
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    logs = list((folder / "run" / "elche" / "events").iterdir())
    found = Told(
        trace,
        page,
        done.stdout,
        sum(path.read_bytes().count(b"\n") for path in logs),
        after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime,
        1024 * after.ru_maxrss,
    )
    shutil.rmtree(folder / "run")  # more than half a gigabyte
    return found


def events_of(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the events of a trace; each is a line of its own."""
    with gzip.open(path, "rt", encoding="utf-8") as file:
        assert next(file).endswith('"traceEvents":[\n')
        for line in file:
            if line == "]}\n":
                return
            yield json.loads(line.rstrip(",\n"))
    raise AssertionError("The trace has no end.")


def test_files_are_small(told: Told) -> None:
    """The trace at most 15 MiB, and the page 2 MiB."""
    assert told.trace.stat().st_size <= 15 * MIB
    assert told.page.stat().st_size <= 2 * MIB


def test_memory_and_time_stay_low(told: Told) -> None:
    """Below 1 GiB, and at most 20 seconds of the processor for a million records."""
    assert told.peak_bytes <= 1024 * MIB
    assert told.cpu_s <= 20.0 * told.num_records / 1e6


def test_trace_is_valid_and_nests(told: Told) -> None:
    """Every event has what viewers need, and the slices of a track lie one after the other."""
    validator = jsonschema.Draft7Validator(SCHEMA)
    ends: dict[tuple[int, int], int] = defaultdict(int)
    for event in events_of(told.trace):
        assert validator.is_valid(event)
        if event["ph"] == "X":
            track = event["pid"], event["tid"]
            assert event["ts"] >= ends[track]
            ends[track] = event["ts"] + event["dur"]
    assert set(ends) == {(rank // PER_HOST, 2 * rank) for rank in range(WORLD)}
    assert min(ends.values()) >= 1e6 * DAY_S


def test_nothing_is_lost_of_the_day(told: Told) -> None:
    """Each rank has computed most of it, and nothing is unexplained."""
    rows = [line.split() for line in told.out.splitlines()[-WORLD:]]
    assert [row[0] for row in rows] == list("01234567")
    assert all(float(row[2].rstrip("%")) > 85.0 for row in rows)
    assert "unexplained" not in told.out
