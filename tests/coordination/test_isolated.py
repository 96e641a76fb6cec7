"""Calls in a process of their own."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
import threading
from concurrent.futures import CancelledError
from pathlib import Path

import pytest

from lightning_elche.coordination import DeadlineWorker
from lightning_elche.exceptions import DeadlineExceeded
from tests.coordination import calls
from tests.coordination.calls import eventually, is_alive


def test_value_comes_back() -> None:
    """Arguments and values of some size travel whole."""
    worker = DeadlineWorker()
    value = worker.run(calls.size_of, b"x" * 5_000_000, timeout_s=60.0, name="size")
    assert value == b"x" * 5_000_000 + b"\x00\x4c\x4b\x40"
    assert (worker.stats()["completed"], set(worker.timeouts())) == (1, {"size", "size_last_ms"})


def test_process_imports_nothing_heavy() -> None:
    """Only what the function needs."""
    assert DeadlineWorker().run(calls.heavy_modules, timeout_s=60.0, name="look") == []


def test_error_comes_back_with_its_traceback() -> None:
    """Its type is kept; the cause tells where it was raised."""
    with pytest.raises(ValueError, match="math domain error") as caught:
        DeadlineWorker().run(math.sqrt, -1.0, timeout_s=60.0, name="root")
    assert "In the process of task 'root':\nTraceback" in str(caught.value.__cause__)


def test_error_that_cannot_travel_is_told_in_words() -> None:
    """As are exits."""
    with pytest.raises(RuntimeError, match="Untravelled: 1 and 2"):
        DeadlineWorker().run(calls.fail, 1, 2, timeout_s=60.0, name="fail")
    with pytest.raises(RuntimeError, match="SystemExit: 3"):
        DeadlineWorker().run(sys.exit, 3, timeout_s=60.0, name="exit")


def test_process_that_dies_is_an_error() -> None:
    """Which tells its exit code."""
    with pytest.raises(RuntimeError, match="'die' ended without a value, exit code 3"):
        DeadlineWorker().run(os._exit, 3, timeout_s=60.0, name="die")


def test_what_cannot_be_pickled_is_refused() -> None:
    """Functions and arguments here, values there."""
    worker = DeadlineWorker()
    with pytest.raises(TypeError, match=r"`fn` and `args` must be picklable, got .*lambda"):
        worker.run(lambda: None, timeout_s=60.0, name="call")
    with pytest.raises(TypeError, match=r"`fn` and `args` must be picklable, got .*print"):
        worker.run(print, threading.Lock(), timeout_s=60.0, name="call")
    with pytest.raises(TypeError, match=r"cannot pickle '_thread.lock' object"):
        worker.run(calls.give_lock, timeout_s=60.0, name="call")
    assert worker.stats()["failed"] == 3


@pytest.mark.parametrize("is_stubborn", [False, True])
def test_deadline_ends_the_process(tmp_path: Path, is_stubborn: bool) -> None:
    """And the one that it has started, even if it does not listen to SIGTERM."""
    file = tmp_path / "pids"
    # It is late as soon as both processes run.
    worker = DeadlineWorker(clock=lambda: 9.0 if file.exists() else 0.0)
    with pytest.raises(DeadlineExceeded):
        worker.run(calls.never_return, str(file), is_stubborn, timeout_s=5.0, name="read")
    pids = [int(pid) for pid in file.read_text().split()]
    assert eventually(lambda: not any(is_alive(pid) for pid in pids))
    assert (worker.stats()["timed_out"], worker.take_timeouts()[0].was_queued) == (1, False)


def test_close_ends_the_process_of_a_run(tmp_path: Path) -> None:
    """While another thread waits for it."""
    file, worker = tmp_path / "pids", DeadlineWorker()
    task = worker.submit(
        lambda _: worker.run(calls.never_return, str(file), timeout_s=None, name="inner"),
        timeout_s=None,
        name="outer",
    )
    assert eventually(file.exists)
    assert worker.close() == ()
    with pytest.raises(CancelledError):
        task.take()
    assert not is_alive(int(file.read_text().split()[0]))


SCRIPT = """
import sys
from lightning_elche.coordination import DeadlineWorker
from tests.coordination import calls
def own(): pass
try:
    DeadlineWorker().run(own, timeout_s=9.0, name="own")
except ValueError as err:
    print(str(err).split(" at ")[0], flush=True)
DeadlineWorker().run(calls.never_return, sys.argv[1], timeout_s=None, name="read")
"""


def test_process_ends_with_the_one_that_waits_for_it(tmp_path: Path) -> None:
    """Even if that one is killed; and functions of a script are refused."""
    file, script = tmp_path / "pids", tmp_path / "script.py"
    script.write_text(SCRIPT)
    root = str(Path(__file__).parents[2])
    command, env = [sys.executable, str(script), str(file)], {**os.environ, "PYTHONPATH": root}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=env) as process:
        assert eventually(file.exists)
        process.kill()
        assert process.stdout is not None
        message = process.stdout.readline()
    pid, other = (int(pid) for pid in file.read_text().split())
    assert eventually(lambda: not is_alive(pid))
    os.kill(other, signal.SIGKILL)  # was not killed with it: that takes who was killed
    assert message == "`fn` must be a function of an importable module, got <function own\n"
