"""Saves checkpoints on the local disk, and copies them to another place at a limited rate."""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import Any

from lightning.pytorch.plugins import AsyncCheckpointIO, CheckpointIO, TorchCheckpointIO
from lightning.pytorch.utilities import rank_zero_warn
from typing_extensions import override

from lightning_elche.contracts.runfolder.durable import rename_durably
from lightning_elche.coordination.bandwidth.budget import BandwidthBudget
from lightning_elche.strategies.checkpoint_io import PartitionCheckpointIO
from lightning_elche.strategies.uploads import Uploader

__all__ = ["ThrottledCheckpointIO"]


class ThrottledCheckpointIO(CheckpointIO):
    """Saves a checkpoint locally, whole or not at all, and uploads it in the background.

    Training goes on once the local file is complete. Uploads keep to what the budget grants; they
    are finished at the end of a fit, within a time. One that fails is told at the next save and at
    the end, and the local file is there in any case. A checkpoint that is removed is removed there,
    too, once newer ones have arrived.

    Args:
        inner: Writes and reads the local file. `None`: what Lightning uses.
        upload: URL of the folder to copy to, such as "s3://bucket/run", as fsspec knows it.
        budget: Grants the rate of uploads.
        priority: Of uploads: "critical", "high", "normal" or "background".
        drain_timeout_s: How long the end of a fit waits for uploads.

    Raises:
        ValueError: If an option is not valid.

    Example:
        >>> from lightning.pytorch import Trainer
        >>> from lightning_elche.coordination import BandwidthBudget
        >>> from lightning_elche.strategies.throttled_io import ThrottledCheckpointIO
        >>> io = ThrottledCheckpointIO(None, "memory://run", budget=BandwidthBudget())
        >>> trainer = Trainer(plugins=[io], logger=False)
    """

    def __init__(
        self,
        inner: CheckpointIO | None,
        upload: str,
        *,
        budget: BandwidthBudget,
        priority: str = "background",
        drain_timeout_s: float = 60.0,
    ) -> None:
        if isinstance(inner, PartitionCheckpointIO | AsyncCheckpointIO):
            raise ValueError(
                "`inner` must write one file before it returns, got "
                f"{type(inner).__name__}. Put this plugin into `PartitionCheckpointIO(inner=...)` "
                "instead, or leave `AsyncCheckpointIO` out."
            )
        if not drain_timeout_s >= 0.0:
            raise ValueError(f"`drain_timeout_s` must be >= 0, got {drain_timeout_s}.")
        self.inner = inner or TorchCheckpointIO()
        self.uploads = Uploader(upload, budget=budget, priority=priority)
        self._drain_timeout_s = drain_timeout_s

    @override
    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any | None = None
    ) -> None:
        """Save a state, and upload it soon.

        Args:
            checkpoint: The state.
            path: A local file.
            storage_options: For the inner plugin.

        Raises:
            ValueError: If `path` is a URL.
        """
        self._tell_failures()
        if "://" in str(path):
            raise ValueError(
                f"`path` must be a local file, which is then uploaded, got {str(path)!r}."
            )
        target = Path(path).absolute()
        temp = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}.tmp")
        try:
            self.inner.save_checkpoint(checkpoint, temp, storage_options)
            rename_durably(temp, target)
        finally:
            temp.unlink(missing_ok=True)
        self.uploads.put(target)

    @override
    def load_checkpoint(
        self, path: str | Path, map_location: Any | None = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        if weights_only is None:  # which older plugins do not know
            return self.inner.load_checkpoint(path, map_location)
        return self.inner.load_checkpoint(path, map_location, weights_only)

    @override
    def remove_checkpoint(self, path: str | Path) -> None:
        """Remove a file, and its copy once newer ones have arrived."""
        self.inner.remove_checkpoint(path)
        self.uploads.remove(Path(path).absolute())

    def drain(self, timeout_s: float) -> bool:
        """Wait for uploads, and return whether none is left."""
        return self.uploads.drain(timeout_s)

    @override
    def teardown(self) -> None:
        """Finish the uploads, as far as there is time, and tell what failed."""
        self.uploads.close(self._drain_timeout_s)
        self._tell_failures()
        self.inner.teardown()

    def _tell_failures(self) -> None:
        for failed in self.uploads.take_failed():
            rank_zero_warn(
                f"{failed.path} is not at {failed.url}: {failed.error}. The local file is complete."
            )
