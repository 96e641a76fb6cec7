"""The thread that looks after what may stop a run."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from lightning_elche.control.requests import StopCause
from lightning_elche.coordination.stopping import watcher
from lightning_elche.coordination.stopping.commands import remove_command, write_command
from lightning_elche.coordination.stopping.run_control import RunControl
from lightning_elche.coordination.stopping.stop import plan_stop
from lightning_elche.coordination.stopping.watcher import CommandFiles, Deadline, Watchdog, Watcher
from tests.coordination.stopwatch import FakeClock


def until(condition: Any) -> None:
    deadline = time.monotonic() + 10.0
    while not condition():
        assert time.monotonic() < deadline


def test_check_that_fails_is_told_once_and_stops_no_other(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The one after it goes on being called."""
    calls: list[int] = []

    def fail() -> None:
        raise OSError("no disk")

    thread = Watcher([fail, lambda: calls.append(1)], period_s=0.001)
    thread.start()
    until(lambda: len(calls) >= 3)
    thread.close()
    thread.close()
    assert caplog.text.count("OSError: no disk") == 1


def test_threads_end_with_it() -> None:
    """Unless the exchange with other ranks is held up, which is not waited for long."""
    exchanged = threading.Event()
    thread = Watcher([], period_s=0.01, exchange=exchanged.set)
    thread.start()
    assert exchanged.wait(10.0)
    thread.close()
    assert not any(one.name.startswith("elche-") for one in threading.enumerate())


WAITS = """
import signal, sys, threading, time
from lightning_elche.coordination.stopping.run_control import RunControl
from lightning_elche.coordination.stopping.watcher import Watcher

control = RunControl()
control.signals.install()
held = threading.Event()

def check():
    if control.stop:
        print(control.stop.name, flush=True)
        held.set()

watcher = Watcher([check], period_s=60.0, heed=control.signals.heed)
watcher.start()
print("ready", flush=True)
# Python handlers do not run while the main thread is in C, as here and in a collective.
import ctypes
libc = ctypes.CDLL(None)
for _ in range(100):
    libc.usleep(100000) if not held.is_set() else None
watcher.close()
"""


def test_signal_is_heard_at_once_while_the_main_thread_is_busy() -> None:
    """The period of the checks is a minute here."""
    with subprocess.Popen(
        [sys.executable, "-c", WAITS], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGTERM)
        assert process.stdout.readline() == "SIGTERM\n"
        assert process.wait(10.0) == 0


def test_files_become_requests_once_a_second(tmp_path: Path) -> None:
    """Each is taken in once; a pause ends with its file."""
    clock = FakeClock(0.0)
    control = RunControl(clock)
    look = CommandFiles(tmp_path, control, clock)
    look()
    write_command(tmp_path, "PAUSE", at=0.0, by="me")
    write_command(tmp_path, "CHECKPOINT", at=0.0, by="me")
    look()
    assert not control.pause  # it has just looked
    clock.advance(1.0)
    look()
    assert (control.pause, control.checkpoint) == (True, True)
    control.request_checkpoint(False)
    remove_command(tmp_path, "PAUSE")
    clock.advance(1.0)
    look()
    assert (control.pause, control.checkpoint) == (False, False)


def test_halt_stops_and_beats_a_pause(tmp_path: Path) -> None:
    """With the words of whoever wrote it."""
    control = RunControl()
    write_command(tmp_path, "PAUSE", at=0.0, by="me")
    write_command(tmp_path, "HALT", at=0.0, by="ann", reason="full disk")
    CommandFiles(tmp_path, control)()
    assert (control.stop, control.pause) == (StopCause.HALT, False)
    assert control.reason == "HALT by ann: full disk"


def test_pause_by_code_is_not_ended_by_an_absent_file(tmp_path: Path) -> None:
    """Who pauses goes on."""
    control = RunControl()
    control.request_pause()
    CommandFiles(tmp_path, control)()
    assert control.pause


def test_deadline_stops_when_it_is_due() -> None:
    """Not before, and not without one."""
    clock = FakeClock(0.0)
    control = RunControl(clock)
    Deadline(lambda: (None, ""), control)()
    look = Deadline(lambda: (5.0, "the end of the job"), control)
    clock.advance(4.9)
    look()
    assert control.stop is StopCause.NONE
    clock.advance(0.1)
    look()
    assert (control.stop, control.reason) == (StopCause.DEADLINE, "the end of the job")


def test_watchdog_ends_a_process_that_hangs(tmp_path: Path) -> None:
    """With the code of the cause, and the stacks of all threads."""
    clock, left = FakeClock(0.0), []
    control = RunControl(clock)
    stacks = tmp_path / "elche" / "stacks-rank0.txt"

    def begin() -> None:
        control.budget = plan_stop(clock(), grace_s=10.0, save_s=1.0, has_trained=True)

    watchdog = Watchdog(control, budget=begin, stacks=lambda: stacks, leave=left.append)
    watchdog()
    control.request_stop(StopCause.SIGINT, "enough")
    watchdog()
    clock.advance(9.9)
    watchdog()
    assert left == []
    clock.advance(0.1)
    watchdog()
    assert left == [130]
    assert "test_watchdog_ends_a_process_that_hangs" in stacks.read_text()


def test_flush_that_hangs_does_not_hold_up_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor does a standard output that nobody reads."""
    monkeypatch.setattr(watcher, "FLUSH_S", 0.01)
    control, left, never = RunControl(), [], threading.Event()
    control.request_stop(StopCause.API, "")
    control.budget = plan_stop(-100.0, grace_s=1.0, save_s=0.0, has_trained=True)
    Watchdog(
        control,
        budget=lambda: None,
        stacks=lambda: tmp_path / "stacks",
        flush=lambda: never.wait(30.0),
        leave=left.append,
    )()
    never.set()
    assert left == [143]


def test_smaller_cause_replaces_a_larger_one() -> None:
    """The time counts from the first."""
    clock = FakeClock(0.0)
    control = RunControl(clock)
    control.request_stop(StopCause.API, "code")
    clock.advance(3.0)
    control.request_stop(StopCause.SIGTERM, "scheduler")
    control.request_stop(StopCause.HALT, "file")
    assert (control.stop, control.reason) == (StopCause.SIGTERM, "scheduler")
    assert control.requested_at == 0.0


def test_control_is_new_in_another_process() -> None:
    """A launcher sends the strategy there with pickle, which takes no lock."""
    import pickle

    control = RunControl()
    control.request_pause()
    assert not pickle.loads(pickle.dumps(control)).pause
    assert os.getpid() == control.signals._pid
