"""A callback that asks a registry before it trains, and what it asks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lightning.pytorch import Callback

from lightning_elche.callbacks.admission import Admission
from lightning_elche.coordination.registry.database import Database
from lightning_elche.coordination.registry.limits import LimitsConfig
from lightning_elche.coordination.registry.registry import Registry
from tests.coordination.registered import ANY_RATE

__all__ = ["SMALL", "Admitted", "registry_in"]

SMALL: dict[str, Any] = {"size": 8, "val_size": 4, "delays_ms": (0.0,), "strategy": "auto"}


def registry_in(folder: str | Path) -> Registry:
    return Registry(Database(Path(folder) / "registry.db"), limits=LimitsConfig(**ANY_RATE))


class Admitted(Callback):
    """Hands its hooks on, and looks at the leases while training."""

    def __init__(self, admission: Admission, registry: Registry) -> None:
        self.admission, self.registry = admission, registry
        self.seen: set[tuple[str, bool]] = set()

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        self.admission.setup(trainer, pl_module, stage)

    def on_train_batch_end(self, *_: Any) -> None:
        leases = self.registry.leases()
        self.seen |= {(lease.kind, lease.has_progressed) for lease in leases}

    def on_average_end(self, event: Any) -> None:
        self.admission.on_average_end(event)

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        self.admission.on_train_epoch_end(trainer, pl_module)

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        self.admission.on_validation_end(trainer, pl_module)

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        self.admission.on_exception(trainer, pl_module, exception)

    def teardown(self, trainer: Any, pl_module: Any, stage: str) -> None:
        self.admission.teardown(trainer, pl_module, stage)
