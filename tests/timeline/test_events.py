"""What a rank records is on the disk within a second, whole, and valid."""

from __future__ import annotations

import json
import math
import threading
from importlib import resources
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from lightning_elche.timeline.events import INSTANTS, SPANS, EventLog
from tests.timeline.recorded import Clock, header_of, record_run

SCHEMA: dict[str, Any] = json.loads(
    resources.files("lightning_elche.contracts")
    .joinpath("schemas/event-v1.schema.json")
    .read_text("utf-8")
)


def log_in(folder: Path, **options: Any) -> EventLog:
    return EventLog(
        folder, rank=0, header=header_of(0, 1), clock_ns=Clock(5), wall_ns=Clock(7), **options
    )


def lines_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_bytes().splitlines()]


def test_log_begins_with_header_and_clock_and_ends_with_the_end(tmp_path: Path) -> None:
    """Between them is what was recorded, in order, numbered without a gap."""
    log = log_in(tmp_path)
    log.instant("gate", code=3)
    log.span("validation", 1, 2)
    log.close()
    lines = lines_of(tmp_path / "rank0.jsonl")
    assert [line["k"] for line in lines] == ["header", "clock", "gate", "validation", "clock"]
    assert [line["seq"] for line in lines] == [0, 1, 2, 3, 4]
    assert lines[-1]["a"] == {"wall_ns": 7, "closed": True}


def test_records_are_written_without_closing(tmp_path: Path) -> None:
    """A rank that is killed after `write` has lost nothing."""
    log = log_in(tmp_path, period_s=60.0)
    log.instant("gate")
    log.write()
    assert [line["k"] for line in lines_of(log.path)] == ["header", "clock", "gate"]
    log.close()


def test_flush_has_the_thread_write_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Long before it would."""
    has_written, write = threading.Event(), EventLog.write

    def told(log: EventLog) -> None:
        write(log)
        has_written.set()

    monkeypatch.setattr(EventLog, "write", told)
    log = log_in(tmp_path, period_s=3600.0)
    log.instant("gate")
    log.flush()
    assert has_written.wait(timeout=20.0)
    assert lines_of(log.path)[-1]["k"] == "gate"
    log.close()


def test_full_queue_drops_and_counts(tmp_path: Path) -> None:
    """What was dropped is said, and leaves a gap of its size in the numbers."""
    log = log_in(tmp_path, capacity=2, period_s=60.0)
    for _ in range(5):
        log.instant("gate")
    log.write()
    lines = lines_of(log.path)
    assert [(line["seq"], line["k"]) for line in lines[2:]] == [
        (5, "dropped"),
        (6, "gate"),
        (7, "gate"),
    ]
    assert lines[2]["a"] == {"count": 3}
    log.close()


def test_full_disk_is_counted_and_told_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Training goes on, and the log has a gap."""
    log = log_in(tmp_path, period_s=60.0)
    file, log._file = log._file, Path("/dev/full").open("wb", buffering=0)  # noqa: SIM115
    for _ in range(2):
        log.instant("gate")
        log.write()
    log._file.close()
    log._file = file
    log.close()
    assert caplog.text.count("Training goes on.") == 1
    assert [line["a"] for line in lines_of(log.path) if line["k"] == "dropped"] == [{"count": 2}]


def test_long_log_is_continued_in_another_file(tmp_path: Path) -> None:
    """Each begins with the header, and the numbers go on."""
    log = log_in(tmp_path, max_bytes=1500, period_s=60.0)
    for number in range(50):
        log.instant("gate", number=number)
        log.write()
    log.close()
    files = [tmp_path / f"rank0.jsonl.{number}" for number in (1, 2)]
    lines = [line for path in (*files, log.path) for line in lines_of(path)]
    assert all(path.stat().st_size <= 1700 for path in files)
    assert [line["seq"] for line in lines] == list(range(len(lines)))
    assert [line["a"]["number"] for line in lines if line["k"] == "gate"] == list(range(50))


def test_log_of_an_earlier_run_is_kept(tmp_path: Path) -> None:
    """It gets another name."""
    log_in(tmp_path).close()
    log_in(tmp_path).close()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["rank0.jsonl", "rank0.jsonl.1"]


def test_numbers_that_json_lacks_become_words(tmp_path: Path) -> None:
    """NaN would make the line unreadable."""
    log = log_in(tmp_path)
    log.instant("alert", value=math.nan, bounds=[1.0, math.inf])
    log.close()
    assert lines_of(log.path)[2]["a"] == {"value": "NaN", "bounds": [1.0, "Infinity"]}


def test_machine_is_sampled_by_the_thread(tmp_path: Path) -> None:
    """Each period adds a counter, without a call of the training thread."""
    twice = threading.Semaphore(0)

    def sample() -> dict[str, float]:
        twice.release()
        return {"cpu": 50.0}

    log = log_in(tmp_path, sample=sample, period_s=0.01)
    assert twice.acquire(timeout=20.0)
    assert twice.acquire(timeout=20.0)
    log.close()
    assert next(line["a"] for line in lines_of(log.path) if line["k"] == "host") == {"cpu": 50.0}


def test_recorded_run_is_valid(tmp_path: Path) -> None:
    """Every line of both ranks matches the schema."""
    record_run(tmp_path)
    lines = [line for path in (tmp_path / "elche" / "events").iterdir() for line in lines_of(path)]
    validator = jsonschema.Draft7Validator(SCHEMA)
    assert [error.message for line in lines for error in validator.iter_errors(line)] == []


@pytest.mark.parametrize(
    "line",
    [
        {"seq": 1, "t_ns": 2, "k": "window", "ph": "X", "dur_ns": 3, "a": {}},
        {"seq": 1, "t_ns": 2, "k": "validation", "ph": "X", "a": {}},
        {"seq": 1, "t_ns": 2, "k": "surprise", "ph": "i", "a": {}},
        {"seq": 1, "t_ns": 2, "k": "gate", "ph": "i", "dur_ns": 3, "a": {}},
    ],
)
def test_other_lines_are_not_valid(line: dict[str, Any]) -> None:
    """A window without its sums, a span without a duration, an unknown kind."""
    assert not jsonschema.Draft7Validator(SCHEMA).is_valid(line)


def test_schema_knows_the_kinds_of_the_code() -> None:
    """Both list the same."""
    spans, instants = (SCHEMA["oneOf"][index]["properties"]["k"]["enum"] for index in (3, 4))
    assert {*spans, "window"} == SPANS
    assert set(instants) == INSTANTS
