"""Saving in the background."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator

import pytest

from lightning_elche.partition.errors import WriteFailed
from lightning_elche.partition.store_writer import BackgroundWriter


@pytest.fixture
def writer() -> Iterator[BackgroundWriter[int]]:
    writer: BackgroundWriter[int] = BackgroundWriter()
    yield writer
    writer.close()


def fail() -> int:
    raise WriteFailed("step-00000001", "disk full", errno=28)


def test_caller_does_not_wait_for_a_job(writer: BackgroundWriter[int]) -> None:
    """A job runs while its caller goes on, and its result is told once."""
    gate = threading.Event()
    writer.submit(lambda: 1 if gate.wait(10) else 0)
    assert writer.is_busy
    assert writer.poll() is None
    gate.set()
    assert (writer.wait(), writer.wait()) == (1, None)


def test_second_job_waits_for_the_first(writer: BackgroundWriter[int]) -> None:
    """None is left out, and no two run at once."""
    order: list[int] = []
    gate = threading.Event()
    writer.submit(lambda: order.append(1) or 1 if gate.wait(10) else 0)
    threading.Timer(0.0, gate.set).start()
    writer.submit(lambda: order.append(2) or 2)
    assert writer.wait() == 2
    assert order == [1, 2]


@pytest.mark.parametrize("call", ["wait", "submit"])
def test_error_of_a_job_is_raised_once(writer: BackgroundWriter[int], call: str) -> None:
    """The next call raises what the job raised; the one after it goes on."""
    writer.submit(fail)
    with pytest.raises(WriteFailed, match="disk full"):
        writer.wait() if call == "wait" else writer.submit(lambda: 5)
    assert writer.poll() is None


def test_error_is_raised_by_a_poll_after_the_job(writer: BackgroundWriter[int]) -> None:
    """The first poll after a job has failed raises."""
    ended = threading.Event()

    def fail_and_tell() -> int:
        try:
            return fail()
        finally:
            ended.set()

    writer.submit(fail_and_tell)
    assert ended.wait(10)
    deadline = time.monotonic() + 10
    while writer.is_busy and time.monotonic() < deadline:
        os.sched_yield()
    with pytest.raises(WriteFailed):
        writer.poll()


def test_close_raises_what_nobody_has_asked_for() -> None:
    """An error of the last job is not lost, and the thread ends."""
    writer: BackgroundWriter[int] = BackgroundWriter()
    writer.submit(fail)
    with pytest.raises(WriteFailed):
        writer.close()
    assert not any("elche-checkpoint" in thread.name for thread in threading.enumerate())
