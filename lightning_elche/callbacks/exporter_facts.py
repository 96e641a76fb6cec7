"""What an exporter reads from the Trainer and its machine, rather than from a status."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import torch

from lightning_elche.callbacks.governor_hooks import checkpoint_folder
from lightning_elche.callbacks.host_durations import fingerprint_of
from lightning_elche.callbacks.host_gpu import gpu_signal
from lightning_elche.callbacks.run_folder import run_folder
from lightning_elche.coordination.monitoring.metrics_host import samples_of_host
from lightning_elche.strategies.checkpoint_io import PartitionCheckpointIO
from lightning_elche.strategies.throttled_io import ThrottledCheckpointIO

if TYPE_CHECKING:
    from lightning.pytorch import LightningModule, Trainer

    from lightning_elche.coordination.monitoring.exposition import Samples

__all__ = ["RunFacts"]

RATIO = 0.01  # of a percent


class RunFacts:
    """Which run it is, and what is left of the machine of this rank.

    Args:
        trainer: About to train.
        pl_module: What it trains.
    """

    def __init__(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._trainer, self._device = trainer, trainer.strategy.root_device
        self._gpu_percent = gpu_signal(self._device, "gpu")
        run, strategy = str(run_folder(trainer).parent), type(trainer.strategy).__name__
        self._info = (run, fingerprint_of(trainer, pl_module), strategy)

    @property
    def has_averages(self) -> bool:
        """Whether ranks meet at averaging events."""
        return bool(getattr(self._trainer.strategy, "is_running", False))

    def samples(self) -> Samples:
        """Return the numbers; may be called in any thread."""
        return {
            "run_info": {self._info: 1.0},
            **samples_of_host(checkpoint_folder(self._trainer)),
            **self._gpu(),
            **self._uploads(),
        }

    def _uploads(self) -> Samples:
        io: object = self._trainer.strategy.checkpoint_io
        if isinstance(io, PartitionCheckpointIO):
            io = io.inner
        if not isinstance(io, ThrottledCheckpointIO):
            return {}
        return {"transfer_bytes_total": {(io.uploads.priority,): io.uploads.sent_bytes}}

    def _gpu(self) -> Samples:
        if self._gpu_percent is None:
            return {}
        index = (str(self._device.index or 0),)
        free, total = torch.cuda.mem_get_info(self._device)
        samples: Samples = {"gpu_memory_used_bytes": {index: total - free}}
        with contextlib.suppress(Exception):  # of a driver, or of no NVML: it is not known
            samples["gpu_utilization_ratio"] = {index: RATIO * self._gpu_percent()}
        return samples
