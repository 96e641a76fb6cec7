"""In which order those who wait are let in."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_elche.coordination.registry.registry import Registry
from tests.coordination.registered import FakeHost, ask, give, make_registry, process


def test_queue_is_served_in_order(registry: Registry) -> None:
    """Who comes later is refused, even if there is room, until those before have started."""
    held = [give(registry, pid=pid) for pid in (1, 2)]
    places = [ask(registry, pid=pid, wait=True).ticket for pid in (3, 4)]
    registry.release(held[0], succeeded=True)
    late = ask(registry, pid=5, wait=True)
    assert (late.code, late.reason) == ("queued", "2 of kind train have waited for longer")
    assert ask(registry, pid=4, wait=True, ticket=places[1]).code == "queued"
    assert ask(registry, pid=3, wait=True, ticket=places[0]).code == "admitted"
    assert ask(registry, pid=4, wait=True, ticket=places[1]).code == "host_limit"


def test_kinds_do_not_wait_for_each_other(registry: Registry) -> None:
    """A queue of trains does not hold up an eval."""
    for pid in (1, 2, 3):
        ask(registry, pid=pid, wait=True)
    assert ask(registry, "eval", pid=4).allowed


def test_place_is_kept_when_it_is_asked_for_again(registry: Registry) -> None:
    """The same ticket, once."""
    give(registry), give(registry)
    first = ask(registry, pid=3, wait=True).ticket
    assert ask(registry, pid=3, wait=True, ticket=first).ticket == first
    assert len(registry.state()["queues"]["train"]) == 1


@pytest.mark.parametrize("leaves", ["cancels", "ends", "forgets"])
def test_place_of_who_has_gone_is_free(registry: Registry, host: FakeHost, leaves: str) -> None:
    """Given up, of a process that has ended, or not asked for in 90 seconds."""
    held = give(registry), give(registry)
    place = ask(registry, pid=3, wait=True).ticket
    assert place is not None
    registry.release(held[0], succeeded=True)
    if leaves == "cancels":
        registry.cancel(place)
    elif leaves == "ends":
        host.ended.add(process(3))
    else:
        host.pass_s(91.0)
    assert ask(registry, pid=4).allowed


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(st.sampled_from("nar"), st.integers(0, 5)), max_size=30))
def test_nobody_is_overtaken(tmp_path_factory: Any, steps: list[tuple[str, int]]) -> None:
    """Whoever comes, asks again or gives back in whatever order: starts are in order of arrival."""
    host = FakeHost()
    registry = make_registry(tmp_path_factory.mktemp("fifo"), host, per_host={"train": 1})
    waiting: dict[int, str] = {}
    running: list[str] = []
    started: list[int] = []
    for number, (step, which) in enumerate(steps):
        if step == "r" and running:
            registry.release(running.pop(), succeeded=True)
        asker = number if step == "n" else next(iter([*waiting][which:]), None)
        if step == "r" or asker is None:
            continue
        answer = ask(registry, pid=asker, wait=True, ticket=waiting.get(asker))
        if answer.lease is not None:
            running.append(answer.lease.id)
            started.append(asker)
            assert waiting.pop(asker, None) is not None or not waiting
        else:
            assert answer.ticket is not None
            waiting[asker] = answer.ticket
    assert started == sorted(started)
