"""The checkpoint of an epoch: complete on the disk, or reported by all ranks as failed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightning_elche.contracts.filedigest import sha256_of_file
from lightning_elche.contracts.runfolder.durable import rename_durably
from lightning_elche.ops.state_digest import ALGORITHM, optimizer_state_digest

if TYPE_CHECKING:
    from lightning.pytorch import Trainer

__all__ = ["EpochCheckpoint", "SavedCheckpoint"]


@dataclass(frozen=True, kw_only=True)
class SavedCheckpoint:
    """What a checkpoint holds and how large it is.

    Attributes:
        optimizer_state_algo: How the digest of the optimizer states was made.
        optimizer_state_sha: The digest.
        optimizer_state_bytes: Size of their tensors.
        checkpoint_sha256: Digest of the file, or of the content of the folder.
        checkpoint_bytes: Its size.
    """

    optimizer_state_algo: str
    optimizer_state_sha: str
    optimizer_state_bytes: int
    checkpoint_sha256: str
    checkpoint_bytes: int


class EpochCheckpoint:
    """Saves checkpoints, which get their name once they are complete."""

    def __init__(self) -> None:
        self._is_saving = False
        self._digest = ("", 0)

    def note(self, checkpoint: dict[str, Any]) -> None:
        """Take the digest of what is about to be saved, if it is ours.

        Args:
            checkpoint: As in `Callback.on_save_checkpoint`.
        """
        if self._is_saving:
            self._digest = optimizer_state_digest(checkpoint["optimizer_states"])

    def save(self, trainer: Trainer, path: Path) -> SavedCheckpoint | str:
        """Save a checkpoint; every rank calls this where they are aligned.

        Args:
            trainer: Whose state to save.
            path: The file.

        Returns:
            What was saved, which only rank 0 knows in full; in words what went wrong there.
        """
        temporary = path.with_name(f".{path.name}.tmp")
        error = self._save(trainer, temporary)
        saved: SavedCheckpoint | str | None = None
        if trainer.is_global_zero:
            saved = error or self._complete(temporary, path)
        return trainer.strategy.broadcast(saved)  # type: ignore[return-value]  # rank 0 has one

    def _save(self, trainer: Trainer, path: Path) -> str | None:
        """Return what went wrong on this rank."""
        error: Exception | None = None
        self._is_saving = trainer.is_global_zero
        try:
            trainer.save_checkpoint(path)
        except (OSError, RuntimeError) as err:  # PyTorch has errors of its own for a full disk
            error = err
        finally:
            self._is_saving = False
        if error is None:
            return None
        if not getattr(trainer.strategy, "is_running", False):
            # Only rank 0 can fail, and the others wait at the end of `save_checkpoint` for it.
            trainer.strategy.barrier("GateTrain.save")
        return f"{type(error).__name__}: {error}"

    def _complete(self, temporary: Path, path: Path) -> SavedCheckpoint | str:
        sha, size = self._digest
        try:
            digest, length = sha256_of_file(temporary), temporary.stat().st_size
            rename_durably(temporary, path)
        except OSError as err:
            return f"{type(err).__name__}: {err}"
        return SavedCheckpoint(
            optimizer_state_algo=ALGORITHM,
            optimizer_state_sha=sha,
            optimizer_state_bytes=size,
            checkpoint_sha256=digest,
            checkpoint_bytes=length,
        )
