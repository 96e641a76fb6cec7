"""Where a run keeps what it tells of itself: events, status, commands."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from lightning.pytorch.utilities import rank_zero_warn

if TYPE_CHECKING:
    from lightning.pytorch import Trainer

__all__ = ["FOLDER", "run_folder"]

FOLDER = "elche"

_folders: WeakKeyDictionary[Trainer, Path] = WeakKeyDictionary()


def run_folder(trainer: Trainer) -> Path:
    """Return the folder `elche` in the log directory of the Trainer, or in its root directory.

    The first call for a Trainer is a broadcast: every rank makes it at the same point, in `setup`.
    Later ones are local. The folder need not exist.
    """
    folder = _folders.get(trainer)
    if folder is None:
        _folders[trainer] = folder = _resolved(trainer.log_dir or trainer.default_root_dir)
    return folder


def _resolved(root: str) -> Path:
    if "://" in root:
        rank_zero_warn(
            f"The logs are kept at {root!r}, which is not a local folder. Events and status of the "
            f"run are written to {FOLDER!r} in the working directory instead."
        )
        root = ""
    return Path(root).absolute() / FOLDER
