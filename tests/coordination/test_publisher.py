"""Signals to a function that may raise, hang and recover."""

from __future__ import annotations

import sys
from collections.abc import Callable

import pytest

from lightning_elche.coordination import DeadlineWorker, Publisher, PublishEvent
from tests.coordination.calls import Gate, eventually
from tests.distributed.threads import FakeClock

CLOSED, OPEN = 0, 2


class Receiver:
    """Remembers what it was told, and raises while it is `broken`."""

    def __init__(self) -> None:
        self.told: list[object] = []
        self.broken: type[Exception] | None = None

    def __call__(self, signal: object) -> None:
        if self.broken is not None:
            raise self.broken(f"no {signal}")
        self.told.append(signal)


def make(
    publish: Callable[[object], object], **options: float
) -> tuple[Publisher[object], FakeClock]:
    clock = FakeClock()
    worker = DeadlineWorker(clock=clock)
    return Publisher(publish, worker, timeout_s=2.0, clock=clock, **options), clock


def send(publisher: Publisher[object], *signals: object) -> list[PublishEvent[object]]:
    """Send one after the other, wait for each, and return what went wrong."""
    events = []
    for signal in signals:
        publisher.send(signal)
        publisher.flush()
        events += publisher.poll()
    return events


def drained(publisher: Publisher[object]) -> list[PublishEvent[object]]:
    """Return what went wrong until nothing more can be sent."""
    events = publisher.poll()
    while publisher._under_way:
        publisher.flush()
        events += publisher.poll()
    return events


def test_signals_arrive_in_order() -> None:
    """However fast they come."""
    receiver = Receiver()
    publisher, _ = make(receiver)
    for number in range(20):
        publisher.send(number)
    assert drained(publisher) == []
    assert receiver.told == [*range(20)]
    assert publisher.stats()["broadcasts"] == 20.0


def test_failure_is_told_and_not_raised() -> None:
    """With type, text and what was to be told."""
    receiver = Receiver()
    publisher, _ = make(receiver)
    receiver.broken = OSError
    (event,) = send(publisher, "halt")
    assert (event.kind, event.signal, event.error_type) == ("dispatch_error", "halt", "OSError")
    assert (event.error, event.breaker_state) == ("no halt", CLOSED)
    assert publisher.stats()["broadcast_failures"] == 1.0


def test_exit_in_the_function_does_not_end_training() -> None:
    """It is a failure like another."""
    publisher, _ = make(lambda _: sys.exit(1))
    (event,) = send(publisher, "notice")
    assert event.error.startswith("Task 'publish' raised SystemExit(1)")


def test_hanging_function_is_a_failure_at_its_deadline() -> None:
    """And its late end changes nothing."""
    gate = Gate()
    publisher, clock = make(gate)
    publisher.send("notice")
    assert gate.begun.wait(20.0)
    clock.now = 2.0
    (event,) = publisher.poll()
    gate.opened.set()
    assert (event.kind, event.waited_ms) == ("dispatch_timeout", 2000.0)
    assert drained(publisher) == []
    assert publisher.stats()["broadcasts"] == 0.0
    assert publisher.stats()["last_broadcast_ms"] == 2000.0


def test_signals_wait_while_the_breaker_is_open() -> None:
    """And go out in order when it has closed."""
    receiver = Receiver()
    publisher, clock = make(receiver)
    receiver.broken = OSError
    events = send(publisher, *"abcde")
    assert [event.breaker_state for event in events] == [CLOSED, CLOSED, OPEN]
    assert publisher.stats()["breaker_state"] == 2.0
    clock.now, receiver.broken = 30.0, None
    assert drained(publisher) == []
    assert (receiver.told, publisher.stats()["breaker_state"]) == (["d", "e"], 0.0)


def test_one_failure_in_half_open_opens_again() -> None:
    """The signal after it waits on."""
    receiver = Receiver()
    publisher, clock = make(receiver)
    receiver.broken = OSError
    send(publisher, *"abcde")
    clock.now = 30.0
    (event,) = drained(publisher)
    assert (event.signal, event.breaker_state) == ("d", OPEN)
    clock.now, receiver.broken = 59.9, None
    assert (drained(publisher), receiver.told) == ([], [])
    clock.now = 60.0
    assert (drained(publisher), receiver.told) == ([], ["e"])


def test_oldest_waiting_signal_is_dropped_for_the_101st() -> None:
    """And counted."""
    receiver = Receiver()
    publisher, clock = make(receiver, per_min=1000)
    receiver.broken = OSError
    send(publisher, *range(3 + 101))
    assert publisher.stats()["dropped"] == 1.0
    clock.now, receiver.broken = 30.0, None
    drained(publisher)
    assert receiver.told == [*range(4, 104)]


def test_rate_is_limited_but_for_what_must_go() -> None:
    """Over any minute; what is too much is dropped and counted."""
    receiver = Receiver()
    publisher, clock = make(receiver, per_min=2)
    send(publisher, "a", "b", "c")
    publisher.send("halt", must_go=True)
    publisher.flush()
    clock.now = 59.9
    send(publisher, "d")
    clock.now = 60.0
    send(publisher, "e")
    assert (receiver.told, publisher.stats()["dropped"]) == (["a", "b", "halt", "e"], 2.0)


def test_what_must_go_passes_an_open_breaker() -> None:
    """And closes it if it arrives."""
    receiver = Receiver()
    publisher, _ = make(receiver)
    receiver.broken = OSError
    send(publisher, *"abcd")
    receiver.broken = None
    publisher.send("halt", must_go=True)
    publisher.flush()
    assert (receiver.told, publisher.breaker_state) == (["halt"], CLOSED)


def test_what_must_go_passes_one_that_hangs() -> None:
    """On another thread, and before those that wait."""
    gate, told = Gate(), list[object]()
    publisher, _ = make(lambda signal: gate() if signal == "a" else told.append(signal))
    publisher.send("a")
    publisher.send("b")
    publisher.send("halt", must_go=True)
    assert eventually(lambda: told == ["halt"])
    gate.opened.set()
    publisher.flush()
    assert (drained(publisher), told) == ([], ["halt", "b"])


def test_signal_that_the_worker_does_not_take_is_kept() -> None:
    """A busy worker counts as a failure, so that it is not asked all the time.

    What had to go goes first.
    """
    clock, receiver, gates = FakeClock(), Receiver(), [Gate(), Gate()]
    worker = DeadlineWorker(clock=clock)
    publisher = Publisher(receiver, worker, timeout_s=2.0, clock=clock)
    for gate in gates:
        worker.submit(gate, timeout_s=1.0, name="read")
        assert gate.begun.wait(20.0)
    clock.now = 1.0
    publisher.send("notice")
    publisher.send("halt", must_go=True)
    events = [event for _ in range(9) for event in publisher.poll()]
    assert [event.error_type for event in events] == ["WorkerBusy"] * 3
    for gate in gates:
        gate.opened.set()
    assert eventually(lambda: worker.stats()["stuck"] == 0)
    clock.now = 31.0
    assert (drained(publisher), receiver.told) == ([], ["halt", "notice"])


def test_signal_whose_call_never_began_is_kept() -> None:
    """The threads of the worker were taken by others until its deadline."""
    clock, receiver, gate = FakeClock(), Receiver(), Gate()
    worker = DeadlineWorker(max_threads=1, clock=clock)
    publisher = Publisher(receiver, worker, timeout_s=2.0, clock=clock)
    worker.submit(gate, timeout_s=60.0, name="read")
    assert gate.begun.wait(20.0)
    publisher.send("notice")
    clock.now = 2.0
    (event,) = publisher.poll()
    gate.opened.set()
    assert event.kind == "dispatch_timeout"
    assert (drained(publisher), receiver.told) == ([], ["notice"])


def test_closed_worker_is_no_error_in_training() -> None:
    """The signal waits, and the event says why."""
    worker = DeadlineWorker()
    publisher = Publisher(Receiver(), worker)
    worker.close()
    publisher.send("notice")
    (event, *_) = publisher.poll()
    assert (event.error_type, event.kind) == ("RuntimeError", "dispatch_error")


def test_reset_keeps_what_waits() -> None:
    """And the counts; the breaker closes."""
    receiver = Receiver()
    publisher, _ = make(receiver)
    receiver.broken = OSError
    send(publisher, *"abcd")
    publisher.reset()
    receiver.broken = None
    assert (drained(publisher), receiver.told) == ([], ["d"])
    assert publisher.stats()["broadcast_failures"] == 3.0


@pytest.mark.parametrize(("option", "value"), [("timeout_s", 0.0), ("per_min", 0)])
def test_options_out_of_range_are_refused(option: str, value: float) -> None:
    """The message names the parameter."""
    with pytest.raises(ValueError, match=f"`{option}` must be .* got {value}"):
        Publisher(print, DeadlineWorker(), **{option: value})
