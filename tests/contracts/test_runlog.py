"""The logs of a run as one rank writes them."""

from __future__ import annotations

import errno
import json
import math
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lightning_elche.contracts.records import StepRecord
from lightning_elche.contracts.runfolder import runlog
from lightning_elche.contracts.runfolder.runlog import RunLog


def step(number: int) -> StepRecord:
    return StepRecord(
        step=number,
        train_loss=2.5,
        grad_norm=1.5,
        lr=5e-5,
        tokens_per_sec=1000.0,
        gpu_util_pct=0.0,
        wall_ms=10.0,
        epoch=0,
    )


def steps_in(run_dir: Path, name: str = "train.jsonl") -> list[int]:
    """Return the steps in a log, each of whose lines must be whole."""
    return [json.loads(line)["step"] for line in (run_dir / name).read_bytes().splitlines()]


def events_in(run_dir: Path, name: str = "events.jsonl") -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run_dir / name).read_bytes().splitlines()]


def open_log(run_dir: Path, **options: Any) -> RunLog:
    """Return a log whose clock stands still unless it is given."""
    return RunLog(run_dir, **{"rank": 0, "clock": lambda: 0.0, **options})


def limited_write(sizes: list[int]) -> Callable[[int, bytes], int]:
    """Return a disk that takes so many bytes per call, and is full at 0."""
    real = os.write

    def write(descriptor: int, content: bytes) -> int:
        size = sizes.pop(0) if sizes else len(content)
        if not size:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(descriptor, content[:size])

    return write


def test_steps_are_written_when_enough_have_come(tmp_path: Path) -> None:
    """63 steps wait in memory, and the 64th brings them all to the file."""
    log = open_log(tmp_path)
    for number in range(63):
        log.step(step(number))
    assert steps_in(tmp_path) == []
    log.step(step(63))
    assert steps_in(tmp_path) == list(range(64))


def test_steps_are_written_when_time_has_passed(tmp_path: Path) -> None:
    """Not before `flush_ms`, but with the first step at or after it."""
    times = iter([0.0, 0.099, 0.100, 0.100, 0.150])
    log = open_log(tmp_path, clock=lambda: next(times))
    log.step(step(0))
    assert steps_in(tmp_path) == []
    log.step(step(1))
    assert steps_in(tmp_path) == [0, 1]
    log.step(step(2))
    assert steps_in(tmp_path) == [0, 1]


def test_event_is_written_at_once_behind_the_steps(tmp_path: Path) -> None:
    """An event finds all steps before it in the file, and says when and in which attempt it was."""
    log = open_log(tmp_path, attempt=3)
    log.step(step(0))
    log.event("ABORT", value=math.nan)
    (event,) = events_in(tmp_path)
    assert (event["event"], event["attempt"], event["value"]) == ("ABORT", 3, "nan")
    assert event["time"].endswith("+00:00")
    assert steps_in(tmp_path) == [0]


def test_every_rank_has_files_of_its_own(tmp_path: Path) -> None:
    """Rank 0 has the plain names, the others add their number."""
    for rank in (0, 2):
        log = open_log(tmp_path, rank=rank)
        log.step(step(rank))
        log.close()
    assert sorted(one.name for one in tmp_path.iterdir()) == [
        "events.jsonl",
        "events.rank2.jsonl",
        "train.jsonl",
        "train.rank2.jsonl",
    ]
    assert steps_in(tmp_path, "train.rank2.jsonl") == [2]


def test_log_is_appended_to_when_it_is_opened_again(tmp_path: Path) -> None:
    """A resumed run goes on behind what is there."""
    for number in range(2):
        log = open_log(tmp_path, attempt=number)
        log.step(step(number))
        log.close()
    assert steps_in(tmp_path) == [0, 1]
    assert events_in(tmp_path) == []


def test_torn_tails_are_kept_in_events_when_the_log_is_opened(tmp_path: Path) -> None:
    """Half lines of both files are cut off, and each is told in an event."""
    (tmp_path / "train.jsonl").write_bytes(b'{"step":0}\n{"st\xff')
    (tmp_path / "events.jsonl").write_bytes(b'{"event":"RUN')
    open_log(tmp_path, attempt=1).close()
    assert [(one["event"], one["file"], one["tail"]) for one in events_in(tmp_path)] == [
        ("TORN_TAIL", "events.jsonl", '{"event":"RUN'),
        ("TORN_TAIL", "train.jsonl", '{"st\\xff'),
    ]
    assert steps_in(tmp_path) == [0]


def test_last_line_without_an_end_is_completed_when_the_log_is_opened(tmp_path: Path) -> None:
    """A record that is all there stays, and the next one starts a line of its own."""
    (tmp_path / "train.jsonl").write_bytes(b'{"step":0}')
    log = open_log(tmp_path, attempt=1)
    log.step(step(1))
    log.close()
    assert steps_in(tmp_path) == [0, 1]
    assert events_in(tmp_path) == []


def test_line_is_completed_after_the_disk_was_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A write that stops in the middle of a line raises, and goes on there next time."""
    monkeypatch.setattr(os, "write", limited_write([10, 0]))
    log = open_log(tmp_path, flush_every=1)
    with pytest.raises(OSError, match="No space left"):
        log.step(step(0))
    assert len((tmp_path / "train.jsonl").read_bytes()) == 10
    log.step(step(1))
    assert steps_in(tmp_path) == [0, 1]


def test_memory_is_bounded_while_the_disk_is_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beyond the limit steps are lost, but the line that was begun is completed."""
    monkeypatch.setattr(runlog, "MAX_PENDING_BYTES", 300)
    monkeypatch.setattr(os, "write", limited_write([10, 0, 0, 0]))
    log = open_log(tmp_path, flush_every=1)
    for number in range(3):
        with pytest.raises(OSError, match="No space left"):
            log.step(step(number))
    log.step(step(3))
    assert steps_in(tmp_path) == [0, 3]


def test_event_is_written_although_the_steps_are_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk that fails for the steps does not keep an abort from being told."""
    log = open_log(tmp_path)
    log.step(step(0))
    monkeypatch.setattr(os, "write", limited_write([0]))
    with pytest.raises(OSError, match="No space left"):
        log.event("ABORT")
    assert [one["event"] for one in events_in(tmp_path)] == ["ABORT"]


def test_group_of_no_steps_is_refused(tmp_path: Path) -> None:
    """`flush_every` must be positive."""
    with pytest.raises(ValueError, match="`flush_every` must be at least 1, got 0"):
        RunLog(tmp_path, rank=0, flush_every=0)


KILLED = """
import os, signal, sys
from pathlib import Path
from lightning_elche.contracts.records import StepRecord
from lightning_elche.contracts.runfolder.runlog import RunLog
log = RunLog(Path(sys.argv[1]), rank=0, flush_ms=1e9)
for number in range(1000):
    log.step(StepRecord(step=number, train_loss=1.0, grad_norm=2.0, lr=1.0, tokens_per_sec=1.0,
                        gpu_util_pct=0.0))
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_at_most_sixty_four_steps_are_lost_by_a_kill(tmp_path: Path) -> None:
    """What a killed process leaves are whole lines, all but the last few."""
    ended = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)], check=False)
    assert ended.returncode == -signal.SIGKILL
    assert steps_in(tmp_path) == list(range(960))
