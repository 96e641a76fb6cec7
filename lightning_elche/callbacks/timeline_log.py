"""The event log of a rank in a fit: one, whoever writes to it."""

from __future__ import annotations

import hashlib
import os
import platform
import time
import uuid
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import lightning
import torch
from torch.nn.parameter import UninitializedParameter

from lightning_elche.callbacks.run_events import subscribe
from lightning_elche.callbacks.run_folder import run_folder
from lightning_elche.strategies.elche import ElCheStrategy
from lightning_elche.timeline.events import INSTANTS, SPANS, EventLog
from lightning_elche.timeline.host import HostSampler, boot_id, host_name
from lightning_elche.version import VERSION

if TYPE_CHECKING:
    from lightning.pytorch import Trainer

__all__ = ["attach", "release"]

KINDS = {"checkpoint": "checkpoint_saved"}  # where what is emitted has another name in the log


@dataclass
class _Attached:
    log: EventLog
    unsubscribe: Callable[[], None]
    holders: int = 0


_attached: WeakKeyDictionary[Trainer, _Attached] = WeakKeyDictionary()


def attach(trainer: Trainer) -> EventLog:
    """Return the event log of this rank, which also gets all that `run_events.emit` tells.

    The first call in a fit is a broadcast: every rank makes it at the same point, in `setup`. Each
    caller calls `release` once.
    """
    held = _attached.get(trainer)
    if held is None:
        log = _opened(trainer)
        held = _attached[trainer] = _Attached(log, subscribe(lambda *event: _write(log, *event)))
    held.holders += 1
    return held.log


def release(trainer: Trainer) -> None:
    """Close the log once each who has attached it has released it."""
    held = _attached.get(trainer)
    if held is None:
        return
    held.holders -= 1
    if held.holders == 0:
        del _attached[trainer]
        held.unsubscribe()
        held.log.close()


def _opened(trainer: Trainer) -> EventLog:
    folder = run_folder(trainer) / "events"
    run = trainer.strategy.broadcast(uuid.uuid4().hex)
    folder.mkdir(parents=True, exist_ok=True)
    sample = HostSampler(folder, _gpus) if trainer.local_rank == 0 else None
    header = {"run": run, **_header(trainer)}
    return EventLog(folder, rank=trainer.global_rank, header=header, sample=sample)


def _header(trainer: Trainer) -> dict[str, Any]:
    device = trainer.strategy.root_device
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine()
    strategy = trainer.strategy
    config = strategy.config if isinstance(strategy, ElCheStrategy) else None
    return {
        "fingerprint": _fingerprint(trainer.lightning_module),
        "strategy": type(trainer.strategy).__name__,
        "rank": trainer.global_rank,
        "world": trainer.world_size,
        "host": host_name(),
        "boot": boot_id(),
        "pid": os.getpid(),
        "device": f"{device} {name}",
        "approx": not hasattr(trainer.strategy, "input_timing"),
        "overhead_target": None if config is None else config.cadence.overhead_target,
        "config": None if config is None else repr(config),
        "versions": {
            "lightning-elche": VERSION,
            "lightning": lightning.__version__,
            "torch": torch.__version__,
            "python": platform.python_version(),
        },
    }


def _fingerprint(module: torch.nn.Module) -> str:
    """Return what is equal for runs of the same model, by its class and its parameters' shapes."""
    shapes = [
        (name, None if isinstance(parameter, UninitializedParameter) else tuple(parameter.shape))
        for name, parameter in module.named_parameters()
    ]
    model = f"{type(module).__module__}.{type(module).__qualname__} {shapes}"
    return hashlib.blake2s(model.encode(), digest_size=8).hexdigest()


def _write(log: EventLog, kind: str, data: dict[str, object]) -> None:
    kind = KINDS.get(kind, kind)
    seconds = data.get("seconds")
    if kind in SPANS and isinstance(seconds, float):
        duration_ns = int(1e9 * seconds)
        rest = {key: value for key, value in data.items() if key != "seconds"}
        log.span(kind, time.perf_counter_ns() - duration_ns, duration_ns, **rest)
    elif kind in INSTANTS:
        log.instant(kind, **data)
    else:
        log.instant("alert", what=kind, **{k: v for k, v in data.items() if k != "what"})


def _gpus() -> dict[str, Any]:
    """Return what NVML says of the GPUs; nothing where it is not installed."""
    if not torch.cuda.is_available():
        return {}
    devices = range(torch.cuda.device_count())
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return {
                "gpu": [torch.cuda.utilization(device) for device in devices],
                "vram": [torch.cuda.device_memory_used(device) for device in devices],
            }
    except (ModuleNotFoundError, RuntimeError, AttributeError):
        return {}
