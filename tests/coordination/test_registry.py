"""What a registry tells, what it starts with, and how its tasks share a host."""

from __future__ import annotations

from pathlib import Path

import pytest

from lightning_elche.coordination.registry.registry import Registry
from lightning_elche.coordination.registry.request import Request
from tests.coordination.registered import (
    ANY_RATE,
    MACHINE,
    FakeHost,
    ask,
    give,
    make_registry,
    process,
)


def test_target_is_a_part(tmp_path: Path, host: FakeHost) -> None:
    """Of the host's time."""
    with pytest.raises(ValueError, match=r"`target_ratio` must be in \(0, 1\], got 1.5"):
        make_registry(tmp_path, host, target_ratio=1.5)


def test_why_shows_all_rules_and_changes_nothing(registry: Registry, tmp_path: Path) -> None:
    """The file is the same, byte for byte."""
    give(registry, pid=1), give(registry, pid=2)
    registry.database.close()  # so that all is in the one file
    before = (tmp_path / "registry.db").read_bytes()
    decision = registry.why(Request(kind="train", host="a", process=process(3), wait=True))
    registry.database.close()
    assert (tmp_path / "registry.db").read_bytes() == before
    assert (decision.code, decision.ticket, decision.lease) == ("host_limit", None, None)
    refusing = [rule.reason for rule in decision.rules if not rule.is_met]
    assert refusing == ["2 of kind train on a, 2 allowed"]
    assert [rule.code for rule in decision.rules] == [
        *("halted", "paused", "breaker_open", "queued", "reserved", "host_limit", "cluster_limit"),
        *("capacity", "threshold", "peak_hours", "backpressure", "cooldown", "rate_limited"),
    ]


def test_state_tells_everything(registry: Registry) -> None:
    """As JSON has it."""
    lease = give(registry, pid=1, machine=MACHINE)
    give(registry, pid=2), ask(registry, pid=3, wait=True)
    state = registry.state()
    assert lease in [one["id"] for one in state["leases"]]
    assert state["answers"] == {"admitted": 2, "host_limit": 1}
    assert state["hosts"]["a"]["machine"]["gpus"] == 2
    assert (state["halted"], state["starts"], len(state["queues"]["train"])) == (None, 2, 1)


def test_tasks_split_a_host_by_weight(tmp_path: Path, host: FakeHost) -> None:
    """At each sign of life, by what all of them ask for."""
    registry = make_registry(tmp_path, host, per_host={"train": 9}, target_ratio=0.75)
    first, second = give(registry, weight=1.0), give(registry, weight=2.0)
    assert registry.heartbeat(first, requested=1.0).grant == 0.75
    assert registry.heartbeat(second, requested=1.0).grant == 0.5
    assert registry.heartbeat(first, requested=1.0).grant == 0.25
    assert registry.heartbeat(first).grant is None
    assert registry.heartbeat(second, requested=1.0).grant == 0.5
    registry.heartbeat(first, requested=0.0)
    assert registry.heartbeat(second, requested=1.0).grant == 0.75


def test_new_registry_has_the_limits_of_the_table(tmp_path: Path, host: FakeHost) -> None:
    """One train on a host, three on all; sweeps one in all."""
    registry = make_registry(tmp_path, host)
    assert set(ANY_RATE) <= set(vars(registry.limits))
    assert [ask(registry, host=name).code for name in "aa"] == ["admitted", "host_limit"]
    assert [ask(registry, "sweep", host=name).code for name in "ab"] == [
        "admitted",
        "cluster_limit",
    ]
