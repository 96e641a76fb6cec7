"""The checkpoint of an epoch as `PartitionCheckpoint` writes it, and the file that points to it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from lightning_elche.callbacks.gate_checkpoint import SavedCheckpoint
from lightning_elche.callbacks.partition_checkpoint import PartitionCheckpoint
from lightning_elche.contracts.runfolder.partitioned import FILE_SHA256
from lightning_elche.contracts.runfolder.pointer import write_pointer
from lightning_elche.exceptions import RankFailed
from lightning_elche.partition.checkpoint_errors import CheckpointError
from lightning_elche.partition.fs import this_host
from lightning_elche.partition.manifest import TREE, Manifest, optimizer_state_sha
from lightning_elche.partition.read_checkpoint import read_manifest

if TYPE_CHECKING:
    from lightning.pytorch import Trainer

__all__ = ["EpochPartition", "find_saver"]


def find_saver(trainer: Trainer, run_dir: Path) -> PartitionCheckpoint:
    """Return the callback that writes the checkpoints of epochs; every rank calls this.

    Args:
        trainer: About to fit.
        run_dir: Folder of the run.

    Raises:
        ValueError: If there is none or several, or if it writes outside of `run_dir`.
    """
    callbacks = trainer.callbacks  # type: ignore[attr-defined]  # set by a connector
    found = [one for one in callbacks if isinstance(one, PartitionCheckpoint)]
    if len(found) != 1:
        raise ValueError(
            '`checkpoint="partition"` must have one PartitionCheckpoint in the Trainer, got '
            f"{len(found)}. Write `Trainer(callbacks=[GateTrain(...), PartitionCheckpoint(...)])`."
        )
    dirpath = Path(trainer.strategy.broadcast(str(found[0].dirpath.absolute())))
    if not dirpath.resolve().is_relative_to(run_dir.resolve()):
        raise ValueError(
            f"`PartitionCheckpoint(dirpath)` must lie in `run_dir` ({run_dir}) with "
            f'`GateTrain(checkpoint="partition")`, got {dirpath}. The folder of a run has all of '
            f"its evidence: choose {run_dir / 'partition'}."
        )
    return found[0]


class EpochPartition:
    """Lets a `PartitionCheckpoint` save the checkpoints of epochs.

    Args:
        saver: Of the Trainer.
        run_dir: Folder of the run.
    """

    def __init__(self, saver: PartitionCheckpoint, run_dir: Path) -> None:
        self._saver = saver
        self._run_dir = run_dir

    def save(self, trainer: Trainer, path: Path) -> SavedCheckpoint | str:
        """As `EpochCheckpoint.save`."""
        folder: str | None = None
        saved: SavedCheckpoint | str | None = None
        try:
            folder = self._saver.checkpoint(f"epoch-{trainer.current_epoch}", wait=True)
        except (CheckpointError, OSError) as err:
            saved = f"{type(err).__name__}: {err}"
        except RankFailed:
            # DDP says so on all ranks but the first; elsewhere a rank is lost.
            if getattr(trainer.strategy, "is_running", False):
                raise
        if trainer.is_global_zero and folder is not None:
            saved = self._complete(Path(folder), path)
        return trainer.strategy.broadcast(saved)  # type: ignore[return-value]  # rank 0 has one

    def _complete(self, folder: Path, path: Path) -> SavedCheckpoint | str:
        try:
            saved = _described(read_manifest(this_host().fs, folder))
            write_pointer(path, run_dir=self._run_dir, folder=folder)
        except (CheckpointError, OSError) as err:
            return f"{type(err).__name__}: {err}"
        return saved


def _described(manifest: Manifest) -> SavedCheckpoint:
    states = [group for name, group in manifest.groups.items() if name.startswith("optimizer-")]
    # Optimizers without tensors, such as plain SGD, are wholly in the tree.
    sha = optimizer_state_sha(manifest.groups) or manifest.files[TREE].sha256
    return SavedCheckpoint(
        optimizer_state_algo=FILE_SHA256,
        optimizer_state_sha=sha,
        optimizer_state_bytes=sum(one.slot.nbytes for group in states for one in group.stored),
        checkpoint_sha256=manifest.content_sha256,
        checkpoint_bytes=sum(file.bytes for file in manifest.files.values()),
    )
