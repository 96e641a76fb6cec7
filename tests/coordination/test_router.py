"""Tests of the delivery of events."""

from __future__ import annotations

import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightning_elche.coordination.router import MOST_KEYS, EventRouter, alert_digest
from tests.coordination.stopwatch import FakeClock


class Told:
    """Remembers what it was told."""

    def __init__(self) -> None:
        self.events: list[tuple[str, dict[str, object]]] = []

    def __call__(self, kind: str, data: dict[str, object]) -> None:
        self.events.append((kind, data))

    @property
    def kinds(self) -> list[str]:
        return [kind for kind, _ in self.events]


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def router(clock: FakeClock) -> EventRouter:
    return EventRouter(clock=clock)


def test_each_gets_the_kinds_that_it_wants(router: EventRouter) -> None:
    """A star stands for all kinds."""
    anchors, all_kinds = Told(), Told()
    router.subscribe("anchor", anchors)
    router.subscribe("*", all_kinds)
    for kind in ("share", "anchor", "stopped"):
        router.publish(kind)
    assert anchors.kinds == ["anchor"]
    assert all_kinds.kinds == ["share", "anchor", "stopped"]


def test_particulars_may_have_any_name(router: EventRouter) -> None:
    """Even those of the arguments."""
    told = Told()
    router.subscribe("*", told)
    router.publish("admission", kind="train", self=1)
    assert told.events == [("admission", {"kind": "train", "self": 1})]


@pytest.mark.parametrize(
    ("wanted", "published"),
    [("TRAINING_COMPLETED", "stopped"), ("MODEL_PROMOTED", "checkpoint"), ("chunk", "chunk")],
)
def test_event_has_several_names(router: EventRouter, wanted: str, published: str) -> None:
    """Publishers and subscribers need not use the same."""
    told = Told()
    router.subscribe(wanted, told)
    router.publish(published)
    assert len(told.events) == 1


def test_who_has_enough_is_told_no_more(router: EventRouter) -> None:
    """Ending it twice does nothing."""
    told = Told()
    forget = router.subscribe("*", told)
    router.publish("a")
    forget()
    forget()
    router.publish("b")
    assert told.kinds == ["a"]


def test_subscriber_that_raises_harms_nobody(
    router: EventRouter, caplog: pytest.LogCaptureFixture
) -> None:
    """The next one is told, the failures are counted, and one of them is logged."""
    told = Told()

    def fails(*event: object) -> None:
        raise KeyError(*event)

    router.subscribe("*", fails)
    router.subscribe("*", told)
    router.publish("a")
    router.publish("b")
    assert told.kinds == ["a", "b"]
    assert router.counts() == {"published": 2, "duplicates": 0, "delivered": 2, "failed": 2}
    assert len(caplog.records) == 1


def test_what_a_subscriber_publishes_comes_after(router: EventRouter) -> None:
    """All have had the first event before anybody gets the second."""
    told = Told()
    router.subscribe("a", lambda *_: router.publish("b"))
    router.subscribe("*", told)
    router.publish("a")
    assert told.kinds == ["a", "b"]


def test_events_of_many_threads_come_one_at_a_time(router: EventRouter) -> None:
    """None is lost, none overtakes another of the same thread, no two are delivered at once."""
    told, at_once, most = Told(), [0], [0]

    def count(kind: str, data: dict[str, object]) -> None:
        at_once[0] += 1
        most[0] = max(most[0], at_once[0])
        told(kind, data)
        at_once[0] -= 1

    def publish(thread: int) -> None:
        for number in range(200):
            router.publish("n", thread=thread, number=number)

    router.subscribe("*", count)
    threads = [threading.Thread(target=publish, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20.0)
    order = [[data["number"] for _, data in told.events if data["thread"] == t] for t in range(4)]
    assert order == [list(range(200))] * 4
    assert most == [1]


def test_interrupt_of_a_subscriber_does_not_silence_the_router(router: EventRouter) -> None:
    """What was queued is delivered with the next event."""
    told = Told()

    def interrupts(*_: object) -> None:
        raise KeyboardInterrupt

    router.subscribe("a", interrupts)
    router.subscribe("*", told)
    with pytest.raises(KeyboardInterrupt):
        router.publish("a")
    router.publish("b")
    assert told.kinds == ["b"]


def test_alert_that_repeats_is_told_once(router: EventRouter, clock: FakeClock) -> None:
    """For 30 seconds, from whichever rank or host it comes."""
    told = Told()
    router.subscribe("alert", told)
    router.publish("alert", what="disk", rank=0, at=1.0)
    clock.advance(29.9)
    router.publish("alert", what="disk", rank=1, at=2.0, host="b")
    assert len(told.events) == 1
    clock.advance(0.2)
    router.publish("alert", what="disk", rank=0, at=3.0)
    assert len(told.events) == 2
    assert router.counts()["duplicates"] == 1


def test_other_events_may_repeat(router: EventRouter) -> None:
    """Only alerts are compared."""
    told = Told()
    router.subscribe("*", told)
    router.publish("anchor", to=8)
    router.publish("anchor", to=8)
    assert len(told.events) == 2


def test_memory_of_alerts_is_bounded(router: EventRouter) -> None:
    """The oldest of more than 2,000 is forgotten, and told again."""
    told = Told()
    router.subscribe("alert", told)
    for number in [*range(MOST_KEYS + 1), 0, MOST_KEYS]:
        router.publish("alert", what=number)
    assert len(told.events) == MOST_KEYS + 2


def test_alert_that_another_rank_has_told_is_not_told_again(clock: FakeClock) -> None:
    """Whoever claims it first tells it."""
    claimed: set[str] = set()

    def claim(digest: str) -> bool:
        is_first = digest not in claimed
        claimed.add(digest)
        return is_first

    routers, told = [EventRouter(clock=clock, claim=claim) for _ in range(2)], Told()
    for rank, router in enumerate(routers):
        router.subscribe("*", told)
        router.publish("alert", what="memory", rank=rank)
        router.publish("share", rank=rank)
    assert told.kinds == ["alert", "share", "share"]


@given(st.dictionaries(st.text(), st.one_of(st.integers(), st.text(), st.none())), st.text())
def test_digest_is_of_what_an_alert_says(data: dict[str, object], kind: str) -> None:
    """Not of the order of its particulars, nor of rank and time."""
    shuffled = dict(reversed([*data.items()]))
    same = {**shuffled, "rank": data.get("rank", 3), "t_ns": 5}
    assert alert_digest(kind, same) == alert_digest(kind, data)
    assert alert_digest(kind, {**data, "what": "else"}) != alert_digest(kind, {**data, "what": 0})
