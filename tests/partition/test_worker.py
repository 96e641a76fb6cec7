"""Workers, and the options of partitions."""

from __future__ import annotations

from typing import Any

import pytest

from lightning_elche.partition import errors
from lightning_elche.partition.executor import SerialExecutor
from lightning_elche.partition.plan import PartitionAssignment, PartitionId
from lightning_elche.partition.worker import (
    LOCAL_CPU,
    PartitionBackend,
    PartitionConfig,
    PartitionWorker,
    registered_workers,
    resolve_backend,
)

WORKERS = registered_workers(
    [
        PartitionWorker.local_cpu("cpu"),
        PartitionWorker.cuda_device("gpu", 1),
        PartitionWorker.external("far", "http://host"),
    ]
)


def assigned(worker: str | None) -> PartitionAssignment:
    return PartitionAssignment(PartitionId(3), 0, 1, worker)


@pytest.mark.parametrize(
    ("label", "backend"),
    [
        (None, LOCAL_CPU),
        ("cpu", LOCAL_CPU),
        ("gpu", PartitionBackend("cuda_device", 1)),
        ("far", PartitionBackend("external", None, "http://host")),
    ],
)
def test_label_leads_to_a_backend(label: str | None, backend: PartitionBackend) -> None:
    """A partition runs where its worker does, and without one on the CPU of this process."""
    assert resolve_backend(assigned(label), WORKERS) == backend


def test_unknown_label_is_refused() -> None:
    """A label that no worker has is named with its partition."""
    with pytest.raises(errors.MissingPartitionWorker) as caught:
        resolve_backend(assigned("gone"), WORKERS)
    assert (caught.value.partition, caught.value.worker) == (PartitionId(3), "gone")


def test_repeated_label_is_refused() -> None:
    """Each label is one worker's."""
    with pytest.raises(errors.DuplicateWorker, match="worker a is registered more than once"):
        registered_workers([PartitionWorker("a"), PartitionWorker("b"), PartitionWorker("a")])


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"backend": "tpu"}, "backend"),
        ({"backend": "cuda_device"}, "device_ordinal"),
        ({"backend": "cuda_device", "device_ordinal": -1}, "device_ordinal"),
        ({"device_ordinal": 0}, "device_ordinal"),
        ({"endpoint": "http://host"}, "endpoint"),
    ],
)
def test_worker_is_refused_with_the_name_of_a_bad_value(
    options: dict[str, Any], named: str
) -> None:
    """What does not go with a backend is named."""
    with pytest.raises(errors.InvalidConfig, match=f"`{named}` must be"):
        PartitionWorker("a", **options)


@pytest.mark.parametrize(
    ("backend", "text"),
    [
        (LOCAL_CPU, "local_cpu"),
        (PartitionBackend("cuda_device", 1), "cuda_device:1"),
        (PartitionBackend("external", None, "http://user:secret@host"), "external"),
    ],
)
def test_backend_is_printed_without_its_address(backend: PartitionBackend, text: str) -> None:
    """An address, which may hold a password, is not part of any message."""
    assert str(backend) == text


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"count": 0}, "count"),
        ({"executor": "fast"}, "executor"),
        ({"num_threads": 0}, "num_threads"),
        ({"timeout_s": 0.0}, "timeout_s"),
        ({"timeout_s": float("nan")}, "timeout_s"),
        ({"retries": -1}, "retries"),
    ],
)
def test_config_is_refused_with_the_name_of_a_bad_value(
    options: dict[str, Any], named: str
) -> None:
    """A value outside its range is named."""
    with pytest.raises(errors.InvalidConfig, match=f"`{named}` must be"):
        PartitionConfig(**options)


def test_config_refuses_repeated_labels() -> None:
    """Workers of a configuration have different labels."""
    with pytest.raises(errors.DuplicateWorker):
        PartitionConfig(workers=(PartitionWorker("a"), PartitionWorker("a")))


FAR = (PartitionWorker("cpu"), PartitionWorker.external("far", "http://host"))


@pytest.mark.parametrize(
    ("workers", "has_ranks", "kind"),
    [
        ((), True, "rank"),
        (FAR, True, "rank"),
        (FAR, False, "routing"),
        ((PartitionWorker("cpu"),), False, "threaded"),
        ((), False, "threaded"),
    ],
)
def test_executor_is_chosen_by_what_there_is(
    workers: tuple[PartitionWorker, ...], has_ranks: bool, kind: str
) -> None:
    """Ranks work on their own parts; else external workers decide."""
    assert PartitionConfig(workers=workers).executor_kind(has_rank_executor=has_ranks) == kind


def test_executor_that_is_given_stays() -> None:
    """What a user chooses is used, be it a name or an executor."""
    own = SerialExecutor()
    assert PartitionConfig(executor=own).executor_kind(has_rank_executor=True) is own
    assert PartitionConfig(executor="serial").executor_kind(has_rank_executor=True) == "serial"
