"""When the lease of a task that ended, or fell silent, is free again."""

from __future__ import annotations

import pytest

from lightning_elche.coordination.registry.registry import Registry
from tests.coordination.registered import ELSEWHERE, FakeHost, ask, give, process


def test_slot_of_a_process_that_ended_is_back_at_once(registry: Registry, host: FakeHost) -> None:
    """At the next question, by whomever."""
    give(registry, pid=1), give(registry, pid=2)
    assert ask(registry, pid=3).code == "host_limit"
    host.ended.add(process(1))
    assert ask(registry, pid=3).allowed


def test_lease_of_a_day_is_kept(registry: Registry, host: FakeHost) -> None:
    """Without a sign of life, since its process can be seen."""
    give(registry, pid=1), give(registry, pid=2)
    host.pass_s(24 * 3600.0)
    assert ask(registry, pid=3).code == "host_limit"


@pytest.mark.parametrize("namespace", [ELSEWHERE, "pid:[1]"])
def test_process_that_cannot_be_seen_gives_signs_of_life(
    registry: Registry, host: FakeHost, namespace: str
) -> None:
    """Of another boot or another namespace: it is lost 90 seconds after the last one."""
    far = process(1, boot="first" if namespace == ELSEWHERE else "other", namespace=namespace)
    lease = give(registry, held_by=far)
    host.ended.add(far)
    for _ in range(30):
        host.pass_s(80.0)
        assert registry.heartbeat(lease).is_held
    host.pass_s(90.0)
    assert [one.id for one in registry.leases()] == [lease]
    host.pass_s(1.0)
    assert registry.leases() == ()
    assert not registry.heartbeat(lease).is_held


@pytest.mark.parametrize("by_s", [-3600.0, 3600.0])
def test_wall_clock_that_is_set_changes_nothing(
    registry: Registry, host: FakeHost, by_s: float
) -> None:
    """Neither are leases lost, nor do times of waiting change."""
    far = process(1, namespace=ELSEWHERE)
    give(registry, held_by=far)
    host.pass_s(60.0)
    host.set_wall(by_s)
    assert len(registry.leases()) == 1
    host.pass_s(31.0)
    assert registry.leases() == ()


@pytest.mark.parametrize(("off_s", "left"), [(600.0, 0), (-3600.0, 1)])
def test_restart_of_the_host_ends_what_was_silent(
    registry: Registry, host: FakeHost, off_s: float, left: int
) -> None:
    """Nothing is lost if the wall clock has gone back, and the rest 90 seconds later."""
    give(registry, pid=1)
    host.restart("second", off_s)
    ask(registry, "eval", pid=2, held_by=process(2, boot="second"))
    assert len(registry.leases()) == left + 1
    host.pass_s(91.0)
    assert [lease.kind for lease in registry.leases()] == ["eval"]
