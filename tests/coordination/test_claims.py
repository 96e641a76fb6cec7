"""Tasks that split their host's time by a registry, from asking for it to being held to it."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from lightning_elche.coordination.host.claim import Claim
from lightning_elche.coordination.host.governor import Governor
from lightning_elche.coordination.registry.database import Database
from lightning_elche.coordination.registry.lease_keeper import LeaseKeeper
from lightning_elche.coordination.registry.limits import LimitsConfig
from lightning_elche.coordination.registry.registry import Registry
from lightning_elche.coordination.registry.request import Beat, Request
from tests.coordination.calls import eventually
from tests.coordination.registered import ANY_RATE

BEAT_S = 0.02


class Cut(Registry):
    """Does not answer while its cable is pulled out."""

    is_cut = False

    def heartbeat(self, lease_id: str, **told: Any) -> Beat:
        if self.is_cut:
            raise ConnectionError("no route to host")
        return super().heartbeat(lease_id, **told)


def registry_in(folder: Path) -> Cut:
    limits = LimitsConfig(**ANY_RATE, per_host={"train": 9})
    return Cut(Database(folder / "registry.db"), limits=limits, target_ratio=0.8)


@pytest.fixture
def registry(tmp_path: Path) -> Cut:
    return registry_in(tmp_path)


class Task:
    """A governor that is held to what its lease is granted."""

    def __init__(self, registry: Registry, *, beat_s: float = BEAT_S) -> None:
        self.governor = Governor()
        self.claim = Claim(lambda: self.governor.requested, self._limit)
        lease = registry.admit(Request(kind="train")).lease
        assert lease is not None
        self.keeper = LeaseKeeper(registry, lease.id, beat_s=beat_s, claim=self.claim)

    def _limit(self, granted: float | None) -> None:
        self.governor.limit = granted

    def comes_to(self, granted: float | None) -> Callable[[], bool]:
        return lambda: self.claim.granted == granted


@contextmanager
def task_of(registry: Registry, **options: Any) -> Iterator[Task]:
    task = Task(registry, **options)
    try:
        yield task
    finally:
        task.keeper.release(succeeded=True)


def test_grant_is_told_at_once_and_holds_the_governor(registry: Cut) -> None:
    """Not only at the first regular sign of life; who is alone has all that there is."""
    with task_of(registry, beat_s=600.0) as task:
        assert eventually(task.comes_to(0.8))
        assert (task.claim.requested, task.governor.duty) == (1.0, 0.8)


def test_grant_is_forgotten_while_the_registry_does_not_answer(registry: Cut) -> None:
    """The task goes on without a limit, and has one again when it answers."""
    with task_of(registry) as task:
        assert eventually(task.comes_to(0.8))
        registry.is_cut = True
        assert eventually(task.comes_to(None))
        assert task.governor.duty == 1.0
        registry.is_cut = False
        assert eventually(task.comes_to(0.8))


def test_grant_is_forgotten_with_the_lease(registry: Cut) -> None:
    """As when it was taken back, since no sign of life came for long."""
    with task_of(registry) as task:
        assert eventually(task.comes_to(0.8))
        registry.release(task.keeper.lease_id, succeeded=None)
        assert eventually(task.comes_to(None))


def test_task_that_keeps_its_lease_claims_nothing_in_the_end(registry: Cut) -> None:
    """What it had is for the others, and nothing limits it any more."""
    with task_of(registry, beat_s=600.0) as first:
        assert eventually(first.comes_to(0.8))
        first.keeper.stop()
        assert first.claim.granted is None
        with task_of(registry, beat_s=600.0) as second:
            assert eventually(second.comes_to(0.8))
            assert len(registry.leases()) == 2


def test_task_that_takes_no_part_is_granted_nothing(registry: Cut) -> None:
    """And takes nothing from those that do."""
    lease = registry.admit(Request(kind="train")).lease
    assert lease is not None
    claim = Claim(lambda: None, lambda _: None)
    keeper = LeaseKeeper(registry, lease.id, beat_s=BEAT_S, claim=claim)
    with task_of(registry) as task:
        assert eventually(task.comes_to(0.8))
    assert (claim.requested, claim.granted) == (None, None)
    keeper.release(succeeded=True)


def hold_until_killed(folder: Path, tell: int) -> None:
    """Take part, and tell once the half is granted."""
    task = Task(registry_in(folder))
    is_half = eventually(task.comes_to(0.4))
    os.write(tell, b"half" if is_half else f"{task.claim}".encode())
    signal.pause()


def test_two_processes_split_the_target(tmp_path: Path) -> None:
    """Each is told its half; when one is killed, the other has all again."""
    told, tell = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            hold_until_killed(tmp_path, tell)
        finally:
            os._exit(0)
    os.close(tell)
    with task_of(registry_in(tmp_path)) as task:
        try:
            assert os.read(told, 100) == b"half"
            assert eventually(task.comes_to(0.4))
            assert task.governor.duty == 0.4
        finally:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            os.close(told)
        assert eventually(task.comes_to(0.8))
