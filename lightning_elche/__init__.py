"""Train one model on devices of unequal speed: cadence averaging for PyTorch Lightning.

Importing this package is cheap: `torch` and `lightning` are imported when a name is first used.
`Trainer(strategy="elche")` works after the import, whichever package is imported first.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lightning_elche.lazy import lazy_names
from lightning_elche.registration import register_strategies
from lightning_elche.version import VERSION

if TYPE_CHECKING:
    from lightning_elche.callbacks.cadence_monitor import CadenceMonitor
    from lightning_elche.callbacks.coordination import Coordination
    from lightning_elche.callbacks.exit_on_violation import exit_on_violation
    from lightning_elche.callbacks.gate_train import GateTrain
    from lightning_elche.callbacks.partition_checkpoint import PartitionCheckpoint
    from lightning_elche.callbacks.pcgrad import PCGrad
    from lightning_elche.callbacks.profiler import ElcheProfiler
    from lightning_elche.callbacks.rollback import Rollback
    from lightning_elche.control.cadence import CadenceConfig
    from lightning_elche.control.chunks import ChunkConfig
    from lightning_elche.control.events import AveragingEvent
    from lightning_elche.control.guard import GuardConfig
    from lightning_elche.control.outer import OuterOptimizer
    from lightning_elche.control.recovery import RecoveryPolicy
    from lightning_elche.control.spike import SpikeConfig
    from lightning_elche.exceptions import GateViolation
    from lightning_elche.loops.fabric_loop import ElCheLoop
    from lightning_elche.ops.ring import RingConfig
    from lightning_elche.strategies.checkpoint_io import PartitionCheckpointIO
    from lightning_elche.strategies.elche import ElCheStrategy

__all__ = [
    "AveragingEvent",
    "CadenceConfig",
    "CadenceMonitor",
    "ChunkConfig",
    "Coordination",
    "ElCheLoop",
    "ElCheStrategy",
    "ElcheProfiler",
    "GateTrain",
    "GateViolation",
    "GuardConfig",
    "OuterOptimizer",
    "PCGrad",
    "PartitionCheckpoint",
    "PartitionCheckpointIO",
    "RecoveryPolicy",
    "RingConfig",
    "Rollback",
    "SpikeConfig",
    "exit_on_violation",
]

_MODULES = {
    "AveragingEvent": "control.events",
    "CadenceConfig": "control.cadence",
    "CadenceMonitor": "callbacks.cadence_monitor",
    "ChunkConfig": "control.chunks",
    "Coordination": "callbacks.coordination",
    "ElCheLoop": "loops.fabric_loop",
    "ElCheStrategy": "strategies.elche",
    "ElcheProfiler": "callbacks.profiler",
    "GateTrain": "callbacks.gate_train",
    "GateViolation": "exceptions",
    "GuardConfig": "control.guard",
    "OuterOptimizer": "control.outer",
    "PCGrad": "callbacks.pcgrad",
    "PartitionCheckpoint": "callbacks.partition_checkpoint",
    "PartitionCheckpointIO": "strategies.checkpoint_io",
    "RecoveryPolicy": "control.recovery",
    "RingConfig": "ops.ring",
    "Rollback": "callbacks.rollback",
    "SpikeConfig": "control.spike",
    "exit_on_violation": "callbacks.exit_on_violation",
}

__version__ = VERSION
__getattr__, __dir__ = lazy_names(__name__, _MODULES)

register_strategies()
