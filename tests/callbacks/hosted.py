"""A callback with nothing but `HostHooks`, and what tests of its parts need."""

from __future__ import annotations

from typing import Any

from lightning.pytorch import Callback, Trainer

from lightning_elche.callbacks.governor_hooks import HostHooks
from lightning_elche.coordination.host.governor import GovernorConfig
from tests.ranks import make_trainer

__all__ = ["CPU", "Events", "Hosted", "alone"]

Events = list[tuple[str, dict[str, object]]]
CPU = GovernorConfig(enabled=True, signal="cpu", period_s=0.005)


class Hosted(Callback):
    """Hands the hooks of Lightning on, those of a batch only if they are wanted."""

    def __init__(self, hooks: HostHooks) -> None:
        self.hooks = hooks
        self.on_fit_start = hooks.on_fit_start
        self.on_train_start = hooks.on_train_start
        self.on_average_end = hooks.on_average_end
        self.on_train_end = hooks.on_train_end
        self.on_exception = hooks.on_exception

    def teardown(self, trainer: Any, pl_module: Any, stage: str) -> None:
        self.hooks.teardown()

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        self.hooks.setup(trainer, pl_module, stage)
        for name in ("on_train_batch_start", "on_train_batch_end"):
            if hasattr(self.hooks, name):
                setattr(self, name, getattr(self.hooks, name))


def alone() -> Trainer:
    return make_trainer(1, strategy="auto")
