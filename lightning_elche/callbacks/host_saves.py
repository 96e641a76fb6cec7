"""How long checkpoints take, and how large they are."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightning_elche.callbacks.run_events import emit, subscribe
from lightning_elche.callbacks.step_wrapping import WrappedMethod

if TYPE_CHECKING:
    from collections.abc import Callable

    from lightning.pytorch import LightningModule, Trainer

    from lightning_elche.coordination.schedule.measured import Measured

__all__ = ["SaveWatch", "state_bytes"]

STATE_COPIES = 3  # parameters, and two moments of each in an optimizer


class SaveWatch:
    """Times what `Trainer.save_checkpoint` and `PartitionCheckpoint` save, until it is closed.

    Args:
        trainer: Saves.
        folder: Where, as long as nothing was saved.
        times: Gets the seconds that they took.

    Attributes:
        last_bytes: Size of the last one, 0 before; only on the rank that writes.
        folder: Where the last one lies.
    """

    def __init__(self, trainer: Trainer, folder: Path, times: Measured) -> None:
        self._trainer, self._times = trainer, times
        self.last_bytes = 0
        self.folder = folder
        self._wrapped = WrappedMethod(trainer, "save_checkpoint", self._save)
        self._forget = subscribe(self._hear)

    def close(self) -> None:
        """Watch no more."""
        self._wrapped.restore()
        self._forget()

    def _save(self, method: Callable[..., Any], *args: Any, **kwargs: Any) -> None:  # noqa: ANN401
        began = time.perf_counter()
        method(*args, **kwargs)
        seconds = time.perf_counter() - began
        self._times.add(seconds)
        path = Path(str(args[0] if args else kwargs["filepath"]))
        if self._trainer.is_global_zero and path.exists():  # not at a URL
            self._note(path, _size(path))
            size = self.last_bytes
            emit("checkpoint_saved", path=str(path), bytes=size, seconds=round(seconds, 6))

    def _hear(self, kind: str, data: dict[str, Any]) -> None:
        """Take in what was written in the background, which is told when it is in its place."""
        if kind == "checkpoint":
            self._times.add(float(data["seconds"]))
            self._note(Path(data["path"]), int(data["bytes"]))

    def _note(self, path: Path, num_bytes: int) -> None:
        self.last_bytes, self.folder = num_bytes, path.absolute().parent


def state_bytes(module: LightningModule) -> int:
    """Return about how many bytes a checkpoint of a module and its optimizer has.

    Cost: O(number of tensors).
    """
    parameters = sum(one.numel() * one.element_size() for one in module.parameters())
    buffers = sum(one.numel() * one.element_size() for one in module.buffers())
    return STATE_COPIES * parameters + buffers


def _size(path: Path) -> int:
    if path.is_file():
        return path.stat().st_size
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
