"""Blocks of code that run when the registry lets them."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from pathlib import Path
from typing import Any, NoReturn

import pytest

from lightning_elche.coordination.config import CoordinationConfig
from lightning_elche.coordination.registry.coordinated_task import CoordinatedTask, ask
from lightning_elche.coordination.registry.database import Database
from lightning_elche.coordination.registry.lease_keeper import LeaseKeeper, use_of_tree
from lightning_elche.coordination.registry.limits import LimitsConfig
from lightning_elche.coordination.registry.registry import Registry
from lightning_elche.coordination.registry.request import Request
from tests.coordination.calls import eventually
from tests.coordination.registered import ANY_RATE
from tests.distributed.threads import FakeClock


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return registry_in(tmp_path)


def registry_in(folder: Path, **limits: Any) -> Registry:
    return Registry(Database(folder / "registry.db"), limits=LimitsConfig(**{**ANY_RATE, **limits}))


def failures(registry: Registry) -> int:
    return sum(one["failures"] for one in registry.state()["breakers"].values())


class Unreachable(Registry):
    """A registry behind a cable that was pulled out."""

    def _session(self, **_: bool) -> NoReturn:
        raise ConnectionError("no route to host")


def test_block_holds_a_lease(registry: Registry) -> None:
    """And gives it back."""
    with CoordinatedTask("train", registry=registry) as task:
        held = registry.leases()
        assert (task.allowed, task.lease) == (True, held[0])
    assert registry.leases() == ()


def test_refused_block_runs_all_the_same(registry: Registry) -> None:
    """It knows that it was refused, and why."""
    with CoordinatedTask("train", registry=registry):
        with CoordinatedTask("train", registry=registry) as task:
            ran = True
        assert ran
        assert (task.allowed, task.decision.code, task.lease) == (False, "host_limit", None)
        assert len(registry.leases()) == 1


def test_exception_is_a_failure_and_goes_on(registry: Registry) -> None:
    """Of the host and of the kind."""
    with pytest.raises(ArithmeticError), CoordinatedTask("train", registry=registry):
        raise ArithmeticError
    assert (registry.leases(), failures(registry)) == ((), 2)


def test_interrupt_is_no_failure(registry: Registry) -> None:
    """Nor is any other end of the process."""
    with pytest.raises(KeyboardInterrupt), CoordinatedTask("train", registry=registry):
        raise KeyboardInterrupt
    assert (registry.leases(), failures(registry)) == ((), 0)


def test_progress_reaches_the_registry(registry: Registry) -> None:
    """From another thread, before the block ends."""
    with CoordinatedTask("train", registry=registry) as task:
        task.mark_progress()
        assert eventually(lambda: registry.leases()[0].has_progressed)


def test_progress_is_told_before_a_failure(registry: Registry) -> None:
    """However soon that follows."""
    for _ in range(6):
        with (
            contextlib.suppress(ArithmeticError),
            CoordinatedTask("train", registry=registry) as task,
        ):
            task.mark_progress()
            raise ArithmeticError
    assert failures(registry) == 2


def test_waiting_ends_when_it_may_start(tmp_path: Path) -> None:
    """Here a fifth of a second after the start before it."""
    registry = registry_in(tmp_path, cooldown_s=0.2)
    with (
        CoordinatedTask("eval", registry=registry),
        CoordinatedTask("eval", registry=registry, wait=True, timeout_s=20.0) as task,
    ):
        assert task.allowed
    assert registry.state()["queues"] == {}


def test_waiting_has_an_end(registry: Registry) -> None:
    """Its place in the queue is given up then."""
    with (
        CoordinatedTask("train", registry=registry),
        CoordinatedTask("train", registry=registry, wait=True, timeout_s=0.05) as task,
    ):
        assert task.decision.code == "host_limit"
        assert registry.state()["queues"] == {}


def test_place_is_kept_while_asking(registry: Registry) -> None:
    """And given up if the asking is."""
    with CoordinatedTask("train", registry=registry):
        asking = ask(registry, Request(kind="train", wait=True), clock=FakeClock())
        pauses = [next(asking) for _ in range(3)]
        places = registry.state()["queues"]["train"]
        asking.close()
        assert (pauses, len(places), registry.state()["queues"]) == ([1.0] * 3, 1, {})


def test_asking_ends_with_a_lease(registry: Registry) -> None:
    """As soon as there is one."""
    with CoordinatedTask("train", registry=registry):
        asking = ask(registry, Request(kind="train", wait=True))
        next(asking)
    with pytest.raises(StopIteration) as end:
        next(asking)
    assert end.value.value.allowed
    assert registry.state()["queues"] == {}


def test_async_block_is_the_same(registry: Registry) -> None:
    """An exception in it is a failure, too."""

    async def run() -> None:
        async with CoordinatedTask("train", registry=registry) as task:
            assert task.allowed
            async with CoordinatedTask("train", registry=registry) as other:
                assert not other.allowed
            raise ArithmeticError

    with pytest.raises(ArithmeticError):
        asyncio.run(run())
    assert (registry.leases(), failures(registry)) == ((), 2)


def test_async_waiting_can_be_cancelled(registry: Registry) -> None:
    """And leaves nothing in the queue."""

    async def run() -> None:
        async with CoordinatedTask("train", registry=registry):
            waiting = asyncio.create_task(
                CoordinatedTask("train", registry=registry, wait=True).__aenter__()
            )
            while not registry.state()["queues"]:
                await asyncio.sleep(0)
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await asyncio.wait_for(waiting, 20.0)
            assert registry.state()["queues"] == {}

    asyncio.run(run())
    assert registry.leases() == ()


def test_registry_that_does_not_answer_refuses(tmp_path: Path) -> None:
    """It is no error."""
    with CoordinatedTask("train", registry=Unreachable(Database(tmp_path / "r.db"))) as task:
        assert (task.allowed, task.decision.code) == (False, "unreachable")
        assert task.decision.reason == "no route to host"


def test_lost_registry_does_not_end_a_task(
    registry: Registry, caplog: pytest.LogCaptureFixture
) -> None:
    """A warning tells of it."""
    with CoordinatedTask("train", registry=registry) as task:
        assert task._keeper is not None
        task._keeper._registry = Unreachable(registry.database)
    assert "The registry does not answer, the task goes on: no route to host" in caplog.text
    assert len(registry.leases()) == 1


def test_signs_of_life_come_from_another_thread(tmp_path: Path) -> None:
    """With what the process uses, and how busy the host is: here that allows one task more."""
    registry = registry_in(tmp_path, dynamic={"min": 1, "max": 2})
    lease = registry.admit(Request(kind="train")).lease
    assert lease is not None
    keeper = LeaseKeeper(registry, lease.id, beat_s=0.01, measure=lambda: (20.0, 5 * 2**20))
    assert eventually(lambda: registry.leases()[0].beat_s > lease.beat_s)
    keeper.release(succeeded=True)
    ((ram_bytes, vram_bytes),) = registry.database.read(
        "SELECT ram_peak_bytes, vram_peak_bytes FROM duration"
    )
    assert ram_bytes > 10 * 2**20
    assert vram_bytes == 5 * 2**20
    assert [host["slots"] for host in registry.state()["hosts"].values()] == [2]


def test_lease_that_was_taken_back_is_told_once(
    registry: Registry, caplog: pytest.LogCaptureFixture
) -> None:
    """And the task goes on."""
    caplog.set_level(logging.WARNING)
    lease = registry.admit(Request(kind="train")).lease
    assert lease is not None
    keeper = LeaseKeeper(registry, lease.id, beat_s=0.01)
    registry.release(lease.id, succeeded=None)
    assert eventually(lambda: not keeper.is_held)
    keeper.release(succeeded=True)
    assert caplog.text.count("is not held any more") == 1


def test_forked_child_gives_nothing_back(registry: Registry) -> None:
    """The lease is its parent's."""
    with CoordinatedTask("train", registry=registry) as task:
        pid = os.fork()
        if pid == 0:
            try:
                task.__exit__(None, None, None)
            finally:
                os._exit(0)
        assert os.waitpid(pid, 0)[1] == 0
        assert len(registry.leases()) == 1


def test_use_of_a_tree_counts_its_processes() -> None:
    """This one alone has some memory, and not all cores."""
    ram_bytes, cores = use_of_tree(1.0)
    assert ram_bytes > 10 * 2**20
    assert 0.0 < cores < 64.0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"timeout_s": 1.0}, "`timeout_s` must come with `wait=True`, got 1.0"),
        ({"timeout_s": 0.0, "wait": True}, "`timeout_s` must be > 0, or None for no end, got 0.0"),
        ({"gpus": -1}, "`gpus` must be a whole number >= 0, got -1"),
    ],
)
def test_option_out_of_range_is_refused(
    registry: Registry, options: dict[str, Any], message: str
) -> None:
    """Before anything is asked."""
    with pytest.raises(ValueError, match=message):
        CoordinatedTask("train", registry=registry, **options)


def test_decision_is_there_after_the_question(registry: Registry) -> None:
    """Not before."""
    task = CoordinatedTask("train", registry=registry)
    assert not task.allowed
    with pytest.raises(RuntimeError, match="`decision` exists once the task has been entered"):
        _ = task.decision


def test_options_in_the_documentation_are_some(tmp_path: Path) -> None:
    """As it shows them."""
    text = (Path(__file__).parents[2] / "docs" / "admission.md").read_text(encoding="utf-8")
    (tmp_path / "options.yaml").write_text(text.partition("```yaml\n")[2].partition("```")[0])
    limits = CoordinationConfig.load(tmp_path / "options.yaml").limits
    assert (limits.admission, limits.per_host["train"]) == ("enforce", 2)
