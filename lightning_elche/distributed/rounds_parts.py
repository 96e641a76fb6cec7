"""What averaging rounds are made of, and what a checkpoint holds of them."""

from __future__ import annotations

from typing import TypedDict

from lightning_elche.control.controller import Controller, ControllerState
from lightning_elche.distributed.averager import AveragerState
from lightning_elche.distributed.collectives import Collectives
from lightning_elche.distributed.control_store import ControlStore
from lightning_elche.distributed.replica_exchange import ReplicaExchange
from lightning_elche.distributed.scripts import Script
from lightning_elche.distributed.timing import StepTimer

__all__ = ["RoundsParts", "RoundsState"]


class RoundsParts(TypedDict):
    """What `Rounds` are made of, by argument."""

    controller: Controller
    collectives: Collectives
    store: ControlStore
    replica: ReplicaExchange
    timer: StepTimer
    timeout_s: float
    max_batch_diff: int | None
    script: Script


class RoundsState(TypedDict):
    """What `Rounds.state_dict` returns; JSON-serialisable but for the tensors of `averager`."""

    global_step: int
    controller: ControllerState
    averager: AveragerState
