"""What averaging rounds are made of, and what a checkpoint holds of them."""

from __future__ import annotations

from dataclasses import replace
from typing import TypedDict

from lightning_elche.control.controller import Controller, ControllerState
from lightning_elche.control.reports import Report
from lightning_elche.control.requests import Requests
from lightning_elche.distributed.averager import AveragerState
from lightning_elche.distributed.collectives import Collectives
from lightning_elche.distributed.control_store import ControlStore
from lightning_elche.distributed.replica_exchange import ReplicaExchange
from lightning_elche.distributed.scripts import Script
from lightning_elche.distributed.timing import StepTimer

__all__ = ["RoundsParts", "RoundsState", "asked"]


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


def asked(report: Report, requests: Requests) -> Report:
    """Return the report of a rank that asks for something."""
    return replace(
        report,
        should_stop=requests.should_stop,
        stop=requests.stop,
        needs_alignment=requests.alignment,
        pause=requests.pause,
        checkpoint=requests.checkpoint,
    )
