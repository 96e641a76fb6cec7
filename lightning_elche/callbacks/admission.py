"""Asks the registry whether a run may start, before it does, and keeps its lease."""

from __future__ import annotations

import contextlib
import os
import sys
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import rank_zero_warn

from lightning_elche.callbacks.host_gpu import gpu_signal
from lightning_elche.callbacks.host_grant import GrantLink
from lightning_elche.callbacks.run_events import emit
from lightning_elche.coordination.engines import Engine, find_engines
from lightning_elche.coordination.registry.lease_keeper import (
    LEASE_VARIABLE,
    UNREACHABLE,
    LeaseKeeper,
)
from lightning_elche.coordination.registry.limits import LimitsConfig
from lightning_elche.coordination.registry.machine import read_machine
from lightning_elche.coordination.registry.request import Decision, GrantsLeases, Request
from lightning_elche.distributed.control_store import ControlStore, default_store
from lightning_elche.exceptions import AdmissionDenied

if TYPE_CHECKING:
    from lightning.pytorch import LightningModule, Trainer

    from lightning_elche.control.events import AveragingEvent
    from lightning_elche.coordination.host.claim import Claim

__all__ = ["Admission", "is_enforced", "link_of"]


class Admission:
    """Holds a lease while a run trains; without one it does not start.

    Rank zero asks, and all ranks hear the answer. The first averaging event shows that the start
    has succeeded; where there are none, the first epoch or validation does. At averaging events all
    ranks also hear how much of its host's time the run may take.

    Args:
        limits: Whether to ask, and as what kind of task.
        open_registry: Returns the registry; called on rank zero, and only if it is asked.
        threshold: Returns what is short on this host, in words, or "".
        expected_s: Returns how long the run will take, `None` if that is not known.
        environment: As `os.environ`.
        claim: What each rank asks of its host's time; `None` if the run takes what it can.
    """

    name = "admission"

    def __init__(
        self,
        limits: LimitsConfig,
        open_registry: Callable[[], GrantsLeases],
        *,
        threshold: Callable[[], str] = lambda: "",
        expected_s: Callable[[], float | None] = lambda: None,
        environment: Mapping[str, str] | None = None,
        claim: Claim | None = None,
    ) -> None:
        self._limits, self._open_registry = limits, open_registry
        self._threshold, self._expected_s = threshold, expected_s
        self._environment = os.environ if environment is None else environment
        self._claim, self._link = claim, _no_link
        self._decision: Decision | None = None
        self._keeper: LeaseKeeper | None = None
        self._is_adopted = False

    @property
    def decision(self) -> Decision | None:
        """What the registry has answered, `None` if it was not asked."""
        return self._decision

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Ask, on rank zero, and end the run on all ranks if the answer is no.

        Raises:
            AdmissionDenied: If it is.
            ValueError: If there is no such kind of task; on rank zero, else `AdmissionDenied`.
        """
        del pl_module
        if stage != TrainerFn.FITTING:
            return
        answer: dict[str, Any] = {}
        error: Exception | None = None
        if trainer.is_global_zero:
            try:
                answer = self._ask(trainer).to_dict()
            except Exception as err:  # the other ranks wait: tell them before it is raised
                error = err
                answer = Decision(allowed=False, code="error", reason=str(err)).to_dict()
        answer, name = trainer.strategy.broadcast((answer, uuid.uuid4().hex))
        decision = Decision.from_dict(answer)
        if error is not None:
            raise error
        self._decision = decision
        emit("admission", code=decision.code, reason=decision.reason, allowed=decision.allowed)
        if not decision.allowed:
            raise AdmissionDenied(decision)
        if self._claim is not None and decision.code == "admitted":
            self._link = link_of(trainer, self._claim, name)

    def on_average_end(self, event: AveragingEvent) -> None:
        """Called by ElCheStrategy on every rank."""
        del event
        self._mark_progress()
        self._link()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Where there are no averaging events, this shows that training goes on."""
        del trainer, pl_module
        self._mark_progress()

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """The same, but not before training has begun."""
        del pl_module
        if not trainer.sanity_checking:
            self._mark_progress()

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Give the lease back; what ends the process, such as a signal, is no failure."""
        del trainer, pl_module
        self._release(succeeded=False if isinstance(exception, Exception) else None)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Give the lease back."""
        del trainer, pl_module, stage
        self._release(succeeded=True)

    def status(self) -> dict[str, Any]:
        """Return the answer and the lease, as JSON has it."""
        decision, keeper, claim = self._decision, self._keeper, self._claim
        return {
            "code": None if decision is None else decision.code,
            "lease": None if keeper is None else keeper.lease_id,
            "is_held": keeper is not None and keeper.is_held,
            "requested": None if claim is None else claim.requested,
            "granted": None if claim is None else claim.granted,
        }

    def _ask(self, trainer: Trainer) -> Decision:
        if not is_enforced(self._limits, self._environment, num_nodes=trainer.num_nodes):
            reason = f"`admission` is {self._limits.admission!r}"
            return Decision(allowed=True, code="not_enforced", reason=reason)
        try:
            registry = self._open_registry()
            lease_id = self._environment.get(LEASE_VARIABLE)
            if lease_id:
                self._is_adopted = True
                self._keep(registry, lease_id, trainer)
                return Decision(allowed=True, code="admitted", reason=f"under the lease {lease_id}")
            decision = registry.admit(self._request(trainer))
        except UNREACHABLE as err:
            is_allowed = self._limits.on_unreachable == "allow"
            return Decision(allowed=is_allowed, code="unreachable", reason=str(err))
        if decision.lease is not None:
            self._keep(registry, decision.lease.id, trainer)
            time.sleep(decision.delay_s)
        return decision

    def _request(self, trainer: Trainer) -> Request:
        gpus = trainer.num_devices if trainer.strategy.root_device.type == "cuda" else 0
        machine = read_machine()
        return Request(
            kind=self._limits.kind,
            run=str(Path(trainer.default_root_dir).absolute()),
            gpus=gpus,
            machine=replace(machine, gpus=machine.gpus or gpus),  # Torch sees what it trains on
            weight=self._limits.weight,
            expected_s=self._expected_s(),
            threshold=self._threshold(),
        )

    def _keep(self, registry: GrantsLeases, lease_id: str, trainer: Trainer) -> None:
        measure = _gpu_use(trainer.strategy.root_device)
        self._keeper = LeaseKeeper(registry, lease_id, measure=measure, claim=self._claim)

    def _mark_progress(self) -> None:
        if self._keeper is not None:
            self._keeper.mark_progress()

    def _release(self, *, succeeded: bool | None) -> None:
        keeper, self._keeper = self._keeper, None
        self._link = _no_link
        if keeper is None:
            return
        if self._is_adopted:
            keeper.stop()
        else:
            keeper.release(succeeded=succeeded)


def is_enforced(limits: LimitsConfig, environment: Mapping[str, str], *, num_nodes: int) -> bool:
    """Return whether the registry is asked.

    Args:
        limits: Say so, or leave it to whether something else has placed the run.
        environment: As `os.environ`.
        num_nodes: Of the run.
    """
    if limits.admission != "auto":
        return limits.admission == "enforce"
    engines = find_engines(environment, sys.modules)
    is_multi_node = Engine.TORCHRUN in engines and num_nodes > 1
    return not (is_multi_node or any(engine.places_runs for engine in engines))


def link_of(trainer: Trainer, claim: Claim, name: str) -> Callable[[], None]:
    """Return what hands the grant of rank zero on, called by all ranks at averaging events."""
    strategy, rank = trainer.strategy, trainer.global_rank
    if trainer.world_size == 1:
        return _no_link
    if not hasattr(strategy, "control"):  # nor are there averaging events
        rank_zero_warn(
            f"With {type(strategy).__name__} only rank zero hears how much of its host's time the "
            "registry grants. As all ranks wait for it, that slows down the whole run. With "
            "`ElCheStrategy` all of them hear it."
        )
        return _no_link
    return GrantLink(claim, ControlStore(default_store(), f"grant/{name}"), rank).exchange


def _no_link() -> None:
    """Stand in where nobody is to be told of a grant."""


def _gpu_use(device: torch.device) -> Callable[[], tuple[float | None, int | None]] | None:
    """Return what says how busy the GPU is and what it was used for, `None` without one."""
    signal = gpu_signal(device, "gpu")
    if signal is None:
        return None

    def measure() -> tuple[float | None, int | None]:
        busy_pct = None
        with contextlib.suppress(Exception):  # whatever a driver may raise, or its package
            busy_pct = signal()
        return busy_pct, torch.cuda.max_memory_reserved(device)

    return measure
