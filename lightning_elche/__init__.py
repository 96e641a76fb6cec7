"""Train one model on devices of unequal speed: cadence averaging for PyTorch Lightning.

Importing this package is cheap: `torch` and `lightning` are imported when a name is first used.
`Trainer(strategy="elche")` works after the import, whichever package is imported first.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from lightning_elche.registration import register_strategies
from lightning_elche.version import VERSION as __version__

if TYPE_CHECKING:
    from lightning_elche.callbacks.cadence_monitor import CadenceMonitor
    from lightning_elche.control.cadence import CadenceConfig
    from lightning_elche.control.chunks import ChunkConfig
    from lightning_elche.control.epoch_metrics import EpochMetrics
    from lightning_elche.control.events import AveragingEvent
    from lightning_elche.control.guard import GuardConfig
    from lightning_elche.control.outer import OuterOptimizer
    from lightning_elche.exceptions import MisalignedCollective, PeerLost, RankFailed, RankMismatch
    from lightning_elche.loops.fabric_loop import ElCheLoop
    from lightning_elche.loops.run_config import RunConfig
    from lightning_elche.strategies.elche import ElCheStrategy

__all__ = [
    "AveragingEvent",
    "CadenceConfig",
    "CadenceMonitor",
    "ChunkConfig",
    "ElCheLoop",
    "ElCheStrategy",
    "EpochMetrics",
    "GuardConfig",
    "MisalignedCollective",
    "OuterOptimizer",
    "PeerLost",
    "RankFailed",
    "RankMismatch",
    "RunConfig",
    "__version__",
]

_MODULES = {
    "AveragingEvent": "control.events",
    "CadenceConfig": "control.cadence",
    "CadenceMonitor": "callbacks.cadence_monitor",
    "ChunkConfig": "control.chunks",
    "ElCheLoop": "loops.fabric_loop",
    "ElCheStrategy": "strategies.elche",
    "EpochMetrics": "control.epoch_metrics",
    "GuardConfig": "control.guard",
    "MisalignedCollective": "exceptions",
    "OuterOptimizer": "control.outer",
    "PeerLost": "exceptions",
    "RankFailed": "exceptions",
    "RankMismatch": "exceptions",
    "RunConfig": "loops.run_config",
}


def __getattr__(name: str) -> object:
    """Import a public name when it is first used (PEP 562)."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


register_strategies()
