"""The parts that `Coordination` is made of, and which of their hooks Lightning's are for."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightning_elche.callbacks.admission import Admission
from lightning_elche.callbacks.coordination_events import RunEvents
from lightning_elche.callbacks.exporter import Exporter
from lightning_elche.callbacks.fault_guard import FaultGuard
from lightning_elche.callbacks.governor_hooks import DRAIN_S, HostHooks, drain, uploading_io
from lightning_elche.callbacks.run_stopper import RunStopper
from lightning_elche.coordination.component import Component
from lightning_elche.coordination.host.claim import Claim
from lightning_elche.coordination.registry.admit_threshold import shortage
from lightning_elche.coordination.registry.durations_table import DurationTable
from lightning_elche.coordination.registry.registry import Registry
from lightning_elche.coordination.stopping.shutdown import PRIORITIES

if TYPE_CHECKING:
    from lightning_elche.callbacks.coordination_run import CoordinationRun

__all__ = ["HOOKS", "Calls", "build_parts", "calls_of"]

Calls = Mapping[str, tuple[Callable[..., Any], ...]]

# But `setup`, `on_exception` and `teardown`, which a failing part must not keep from the others.
HOOKS = (
    "on_fit_start",
    "on_sanity_check_start",
    "on_train_start",
    "on_train_batch_start",
    "on_train_batch_end",
    "on_validation_start",
    "on_validation_batch_end",
    "on_validation_end",
    "on_train_epoch_end",
    "on_train_end",
    "on_save_checkpoint",
    "on_average_end",
)


def build_parts(run: CoordinationRun) -> tuple[tuple[Component, ...], RunStopper]:
    """Return the parts of a run in the order in which their hooks are called; and the last of them.

    What may end the run comes last: it has been told of the step by then.
    """
    config = run.config
    host = HostHooks(
        thresholds=config.thresholds,
        targets=config.targets,
        governor=config.governor,
        bandwidth=config.bandwidth,
        schedule=config.schedule,
        environment=run.environment,
        durations=_durations_of(run),
        control=lambda: stopper.control,
        kind=config.limits.kind,
    )
    claim = Claim(lambda: host.requested_duty, host.limit_duty)
    admission = Admission(
        config.limits,
        run.open_registry,
        threshold=lambda: shortage(config.thresholds, Path(run.trainer.default_root_dir)),
        expected_s=lambda: host.expected_s,
        environment=run.environment,
        claim=claim if config.governor.enabled else None,
    )
    export = Exporter(config.export, status=run.status, health=run.health, is_ready=run.is_ready)
    stopper = RunStopper(
        config.stop,
        folder=lambda: run.folder,
        deadline=host.deadline,
        checkpoint_times=host.checkpoint_times,
        flush=run.write_events,
    )
    io = uploading_io(run.trainer)
    if io is not None:
        name = "drain uploads"
        stopper.plan.add(name, partial(drain, io), PRIORITIES[name], DRAIN_S)
    parts: dict[str, object] = {
        "host": host,
        "admission": admission,
        "faults": FaultGuard(config.faults),
        "events": RunEvents(run.router),
        "export": export,
        "stop": stopper,
    }
    return tuple(Component(name, part, run.clock) for name, part in parts.items()), stopper


def _durations_of(run: CoordinationRun) -> DurationTable | None:
    """Return where runs of this machine share how long they take, if they share anything."""
    if not run.is_shared:
        return None
    tables: list[DurationTable] = []

    def open_table() -> None:
        registry = run.open_registry()
        if isinstance(registry, Registry):
            tables.append(DurationTable(registry.database))

    run.on_rank_zero(open_table)
    return tables[0] if tables else None


def calls_of(parts: Sequence[Component]) -> Calls:
    """Return for each hook what to call, so that a hook that nobody has costs nothing."""
    return {
        name: tuple(call for part in parts if (call := part.hook(name)) is not None)
        for name in HOOKS
    }
