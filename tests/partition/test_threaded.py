"""Carrying out tasks at the same time."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from lightning_elche.partition import errors
from lightning_elche.partition.executor import (
    PartitionPhase,
    PartitionTask,
    SerialExecutor,
    run_task,
)
from lightning_elche.partition.plan import PartitionId
from lightning_elche.partition.threaded import RoutingExecutor, ThreadedExecutor
from lightning_elche.partition.worker import LOCAL_CPU, PartitionBackend
from tests.partition.tables import DOUBLE, tasks

FAR = PartitionBackend("external", None, "there")
WAIT_S = 20.0  # only ever used up by a failing test


class External(SerialExecutor):
    """Carries out tasks of external workers here."""

    def supports(self, backend: PartitionBackend) -> bool:
        return backend == FAR


def doubled() -> list[list[float]]:
    """Return what doubling makes of each partition, by one executor after the other."""
    return [run_task(task).payload.state.columns["x"].tolist() for task in tasks()]


@pytest.mark.parametrize("num_threads", [1, 2, 5])
def test_threads_return_what_one_does(num_threads: int) -> None:
    """Results are those of one thread, in the order of tasks, however many threads there are."""
    results = ThreadedExecutor(num_threads).execute(tasks())
    assert [r.payload.state.columns["x"].tolist() for r in results] == doubled()


def test_no_tasks_have_no_results() -> None:
    """Nothing can be carried out, too."""
    assert ThreadedExecutor().execute([]) == []
    assert RoutingExecutor({}).execute([]) == []


def test_threads_work_at_the_same_time_and_are_no_more_than_asked_for() -> None:
    """Of 120 tasks, each meets another one, and never are there three at once."""
    both = threading.Barrier(2)
    lock = threading.Lock()
    active, most = 0, 0

    def meet(_context: Any, _payload: Any) -> None:
        nonlocal active, most
        with lock:
            active += 1
            most = max(most, active)
        both.wait(WAIT_S)
        with lock:
            active -= 1

    ThreadedExecutor(2).execute(tasks(PartitionPhase("meet", meet)) * 40)
    assert most == 2


def test_first_error_in_the_order_of_ids_is_raised_after_all_ended() -> None:
    """The error of partition 0 is raised though that of 2 came first, and 1 has ended by then."""
    failed = [threading.Event(), threading.Event(), threading.Event()]
    ended: list[int] = []

    def fail(context: Any, _payload: Any) -> None:
        number = context.partition_id.value
        if number == 2:
            failed[2].set()
            raise RuntimeError("early")
        assert failed[2].wait(WAIT_S)
        if number == 0:
            failed[0].set()
            raise RuntimeError("late")
        assert failed[0].wait(WAIT_S)
        ended.append(number)

    with pytest.raises(errors.PhaseFailed) as caught:
        ThreadedExecutor(3).execute(tasks(PartitionPhase("fail", fail)))
    assert str(caught.value) == "partition PartitionId(0) phase fail failed: late"
    assert ended == [1]


def test_thread_that_dies_keeps_its_id() -> None:
    """A phase that ends its thread is reported with the partition."""

    def die(context: Any, _payload: Any) -> None:
        if context.partition_id.value == 1:
            raise SystemExit(3)

    with pytest.raises(errors.WorkerFailed) as caught:
        ThreadedExecutor(2).execute(tasks(PartitionPhase("die", die)))
    assert str(caught.value) == "partition PartitionId(1) worker failed: 3"
    assert isinstance(caught.value.__cause__, SystemExit)


def test_threads_are_not_left_behind() -> None:
    """When the results are there, the threads are gone."""
    before = threading.active_count()
    ThreadedExecutor(3).execute(tasks())
    assert threading.active_count() == before


def test_number_of_threads_is_positive() -> None:
    """There is at least one thread."""
    with pytest.raises(errors.InvalidConfig, match="`num_threads` must be >= 1, got 0"):
        ThreadedExecutor(0)


def test_tasks_are_routed_by_backend() -> None:
    """Each executor gets the tasks of its backend, and results keep the order of tasks."""
    got: dict[str, list[int]] = {}

    def note(context: Any, _payload: Any) -> None:
        got.setdefault(context.backend.kind, []).append(context.partition_id.value)

    given = tasks(PartitionPhase("note", note), DOUBLE, backends=(FAR, LOCAL_CPU, FAR))
    router = RoutingExecutor({"local_cpu": ThreadedExecutor(), "external": External()})
    results = router.execute(given)
    assert got == {"external": [0, 2], "local_cpu": [1]}
    assert [r.payload.state.columns["x"].tolist() for r in results] == doubled()


def test_routes_work_at_the_same_time() -> None:
    """A task of one route can wait for one of another."""
    both = threading.Barrier(2)

    def meet(context: Any, _payload: Any) -> None:
        if context.partition_id.value < 2:
            both.wait(WAIT_S)

    given = tasks(PartitionPhase("meet", meet), backends=(FAR, LOCAL_CPU, LOCAL_CPU))
    router = RoutingExecutor({"local_cpu": SerialExecutor(), "external": External()})
    assert len(router.execute(given)) == 3


@pytest.mark.parametrize(
    ("routes", "backend", "is_supported"),
    [
        ({"local_cpu": SerialExecutor()}, LOCAL_CPU, True),
        ({"local_cpu": SerialExecutor()}, FAR, False),
        ({"external": External()}, FAR, True),
        ({"external": External()}, PartitionBackend("external", None, "elsewhere"), False),
    ],
)
def test_route_and_its_executor_must_support_a_backend(
    routes: dict[str, Any], backend: PartitionBackend, is_supported: bool
) -> None:
    """A backend is supported if it has a route whose executor supports it."""
    assert RoutingExecutor(routes).supports(backend) is is_supported


def test_backend_without_route_is_refused_before_anything_runs() -> None:
    """A task without a route keeps all from being carried out."""
    given: list[PartitionTask] = tasks(backends=(LOCAL_CPU, FAR, LOCAL_CPU))
    with pytest.raises(errors.UnsupportedBackend) as caught:
        RoutingExecutor({"local_cpu": SerialExecutor()}).execute(given)
    assert caught.value.partition == PartitionId(1)
    assert given[0].payload.state.columns["x"].tolist() == [0.0, 1.0, 2.0, 3.0]


def test_first_error_in_the_order_of_ids_is_raised_over_routes() -> None:
    """If two routes fail, the error of the lower partition is raised."""

    def fail(context: Any, _payload: Any) -> None:
        if context.partition_id.value > 0:
            raise RuntimeError("boom")

    given = tasks(PartitionPhase("fail", fail), backends=(FAR, LOCAL_CPU, FAR))
    router = RoutingExecutor({"external": External(), "local_cpu": SerialExecutor()})
    with pytest.raises(errors.PhaseFailed) as caught:
        router.execute(given)
    assert caught.value.partition == PartitionId(1)


def test_route_of_an_unknown_kind_is_refused() -> None:
    """Routes are named like backends."""
    with pytest.raises(errors.InvalidConfig, match="`routes` must be of"):
        RoutingExecutor({"tpu": SerialExecutor()})
