"""How many may run: the limits of hosts, of the cluster and of what a machine has."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from lightning_elche.coordination.registry.capacity import Machine
from lightning_elche.coordination.registry.registry import Registry
from lightning_elche.coordination.registry.request import Request
from tests.coordination.registered import GIB, MACHINE, FakeHost, ask, give, make_registry, process


def test_limit_of_a_host_holds_there_only(registry: Registry) -> None:
    """The third on one host is refused, the first on another is not."""
    codes = [ask(registry, pid=pid).code for pid in (1, 2, 3)]
    assert codes == ["admitted", "admitted", "host_limit"]
    assert ask(registry, pid=3, host="b").code == "admitted"


def test_limit_of_the_cluster_holds_everywhere(registry: Registry) -> None:
    """Three of kind train on all hosts."""
    codes = [ask(registry, host=name).code for name in "abcd"]
    assert codes == ["admitted", "admitted", "admitted", "cluster_limit"]


def test_lease_that_is_given_back_is_free_at_once(registry: Registry) -> None:
    """And giving it back twice is no error."""
    first = give(registry)
    give(registry)
    assert ask(registry).code == "host_limit"
    assert [registry.release(first, succeeded=True) for _ in range(2)] == [True, False]
    assert ask(registry).code == "admitted"


def test_who_asks_again_since_the_answer_was_lost_gets_no_second_lease(registry: Registry) -> None:
    """The same one, and its start counts once."""
    request = Request(kind="train", host="a", process=process(1))
    leases = [registry.admit(request).lease for _ in range(2)]
    assert leases[0] == leases[1]
    assert (len(registry.leases()), registry.state()["starts"]) == (1, 1)


def test_unknown_kind_is_an_error(registry: Registry) -> None:
    """The message says which there are, and how to add one."""
    with pytest.raises(ValueError, match=r"`kind` must be one of eval, .* got 'trian'. Add it to"):
        ask(registry, "trian")


def test_memory_that_others_have_asked_for_is_taken(registry: Registry) -> None:
    """Until they have ended."""
    first = give(registry, ram_bytes=40 * GIB, machine=MACHINE)
    refused = ask(registry, "eval", ram_bytes=30 * GIB, machine=MACHINE)
    assert refused.code == "capacity"
    assert refused.reason == (
        "it needs 32212254720 bytes of memory, a has 68719476736, of which 42949672960 are asked "
        "for"
    )
    registry.release(first, succeeded=True)
    assert ask(registry, "eval", ram_bytes=30 * GIB, machine=MACHINE).allowed


@pytest.mark.parametrize(
    "needs", [{"ram_bytes": 65 * GIB}, {"gpus": 3}, {"gpus": 1, "vram_bytes": 161 * GIB}]
)
def test_what_never_fits_does_not_wait(registry: Registry, needs: dict[str, Any]) -> None:
    """There is no place in the queue for it."""
    refused = ask(registry, machine=MACHINE, wait=True, **needs)
    assert (refused.code, refused.ticket) == ("too_large", None)


@pytest.mark.parametrize(
    ("needs", "words"),
    [
        ({"gpus": 2}, "it needs 2 GPUs, a has no GPU that a driver shows: it never fits"),
        ({"gpus": 1}, "it needs 1 GPU, a has no GPU that a driver shows: it never fits"),
        ({"vram_bytes": 5}, "it needs 5 bytes of GPU memory, a has no GPU that a driver shows: "),
    ],
)
def test_host_that_is_known_to_have_no_gpu_refuses_what_needs_one(
    registry: Registry, needs: dict[str, int], words: str
) -> None:
    """For good; one of which nothing is known does not."""
    cpus = Machine(ram_bytes=64 * GIB, cores=16.0)
    refused = ask(registry, machine=cpus, wait=True, **needs)
    assert (refused.code, refused.ticket) == ("too_large", None)
    assert refused.reason.startswith(words)
    assert ask(registry, machine=Machine(), **needs).allowed


@pytest.mark.parametrize(
    ("held", "asked", "code"),
    [
        ({"gpus": 1}, {"gpus": 1}, "admitted"),
        ({"gpus": 2}, {"gpus": 1}, "capacity"),
        ({"gpus": 1}, {"gpus": 2, "vram_bytes": 20 * GIB}, "capacity"),
        ({"gpus": 1}, {"gpus": 1, "vram_bytes": 20 * GIB}, "admitted"),
        ({"gpus": 2, "vram_bytes": 20 * GIB}, {"gpus": 2, "vram_bytes": 20 * GIB}, "admitted"),
        ({"gpus": 2, "vram_bytes": 20 * GIB}, {"gpus": 1}, "capacity"),
        ({"gpus": 2, "vram_bytes": 150 * GIB}, {"gpus": 1, "vram_bytes": 20 * GIB}, "capacity"),
    ],
)
def test_gpus_are_shared_by_those_that_say_what_they_need(
    registry: Registry, held: dict[str, int], asked: dict[str, int], code: str
) -> None:
    """Those that do not say it have theirs alone."""
    give(registry, machine=MACHINE, **held)
    assert ask(registry, machine=MACHINE, **asked).code == code


def test_measured_capacity_limits_a_kind(tmp_path: Path, host: FakeHost) -> None:
    """Sixteen cores have room for two tasks of which each has used eight."""
    registry = make_registry(
        tmp_path, host, capacity="measured", per_host={"train": 100}, cluster={"train": None}
    )
    first = give(registry, machine=MACHINE)
    registry.heartbeat(first, cores_used=8.0, ram_peak_bytes=GIB)
    registry.release(first, succeeded=True)
    codes = [ask(registry, machine=MACHINE).code for _ in range(3)]
    assert codes == ["admitted", "admitted", "host_limit"]


def test_dynamic_limit_follows_the_utilization(tmp_path: Path, host: FakeHost) -> None:
    """By one each 30 seconds, within its bounds."""
    registry = make_registry(tmp_path, host, dynamic={"min": 1, "max": 2})
    lease, slots = give(registry), []
    for utilization in (20.0, 20.0, 20.0, 70.0, 95.0, 95.0):
        registry.heartbeat(lease, utilization_pct=utilization)
        slots.append(registry.state()["hosts"]["a"]["slots"])
        host.pass_s(20.0)
    assert slots == [2, 2, 2, 2, 1, 1]
