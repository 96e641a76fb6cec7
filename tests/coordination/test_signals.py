"""Signals as flags."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Iterator

import pytest

from lightning_elche.control.requests import StopCause
from lightning_elche.coordination.stopping.signals import SignalHandlers, WakeupPipe

Asked = list[StopCause]


@pytest.fixture(autouse=True)
def _handlers() -> Iterator[None]:
    watched = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGCHLD)
    before = {signum: signal.getsignal(signum) for signum in watched}
    yield
    for signum, handler in before.items():
        signal.signal(signum, handler)


def handlers_of(asked: Asked, *names: str) -> SignalHandlers:
    return SignalHandlers(lambda cause, _: asked.append(cause), names or ("SIGTERM", "SIGINT"))


def send(signum: int) -> None:
    os.kill(os.getpid(), signum)


def test_signal_asks_for_a_stop_by_its_cause() -> None:
    """Nothing else happens, however often it comes."""
    asked: Asked = []
    handlers = handlers_of(asked, "SIGTERM", "SIGINT", "SIGUSR1")
    handlers.install()
    for signum in (signal.SIGTERM, signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):
        send(signum)
    causes = [StopCause.SIGTERM, StopCause.SIGTERM, StopCause.SIGINT, StopCause.REQUEUE]
    assert asked == causes


def test_second_interrupt_leaves_at_once() -> None:
    """A second or more after the first; a terminal sends the same to every rank."""
    handlers = handlers_of([])
    handlers.install()
    send(signal.SIGINT)
    send(signal.SIGINT)  # at once: another launcher's copy of the same
    assert handlers._interrupted_at is not None
    handlers._interrupted_at -= 1.0
    with pytest.raises(KeyboardInterrupt):
        send(signal.SIGINT)


def test_earlier_handler_is_called_and_comes_back() -> None:
    """During the run, after it, and when Lightning has put ours back."""
    heard: list[int] = []

    def earlier(signum: int, _: object) -> None:
        heard.append(signum)

    signal.signal(signal.SIGTERM, earlier)
    asked: Asked = []
    handlers = handlers_of(asked, "SIGTERM")
    handlers.keep_earlier()
    handlers.install()
    own = signal.getsignal(signal.SIGTERM)
    send(signal.SIGTERM)
    handlers.close()
    assert signal.getsignal(signal.SIGTERM) is earlier
    signal.signal(signal.SIGTERM, own)
    send(signal.SIGTERM)
    assert (len(heard), len(asked)) == (2, 1)


def test_forked_child_is_not_asked() -> None:
    """A DataLoader worker ends with its parent."""
    asked: Asked = []
    handlers = handlers_of(asked)
    handlers.install()
    handlers._pid -= 1
    send(signal.SIGTERM)
    assert asked == []


def test_default_action_comes_back_after_the_run() -> None:
    """A process that has no run any more ends by a signal, as any other."""
    pid = os.fork()
    if pid == 0:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        handlers = handlers_of([], "SIGTERM")
        handlers.keep_earlier()
        handlers.install()
        own = signal.getsignal(signal.SIGTERM)
        handlers.close()
        signal.signal(signal.SIGTERM, own)  # as Lightning does at the end
        send(signal.SIGTERM)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGTERM


def test_pipe_tells_of_signals_and_hands_them_on() -> None:
    """What was set before gets them, too, and is there again in the end."""
    reader, writer = socket.socketpair()
    for end in (reader, writer):
        end.setblocking(False)
    before = signal.set_wakeup_fd(writer.fileno())
    try:
        handlers_of([], "SIGUSR1").install()
        pipe = WakeupPipe()
        send(signal.SIGUSR1)
        assert pipe.read() == reader.recv(10) == bytes([signal.SIGUSR1])
        assert pipe.read() == b""
        pipe.close()
        assert signal.set_wakeup_fd(before) == writer.fileno()
    finally:
        signal.set_wakeup_fd(before)
        reader.close()
        writer.close()
