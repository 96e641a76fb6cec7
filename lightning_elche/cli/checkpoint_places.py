"""What the paths on the command line of `elche checkpoint` mean, and its exit codes."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from lightning_elche.cli.checkpoint_output import say
from lightning_elche.cli.streams import told
from lightning_elche.partition.errors import (
    CheckpointError,
    Corrupt,
    InvalidConfig,
    NoCheckpointFound,
    UnsupportedFormat,
)
from lightning_elche.partition.fs import Fs
from lightning_elche.partition.manifest import MANIFEST
from lightning_elche.partition.read_root import choose_checkpoint
from lightning_elche.partition.store_names import parse_checkpoint_name

__all__ = [
    "OTHER_FORMAT",
    "UNREADABLE",
    "checkpoint_at",
    "checkpoints_at",
    "exit_code_of",
    "explained",
    "place",
]

USAGE, UNREADABLE, OTHER_FORMAT = 2, 3, 4
HINT = "Name a checkpoint, such as step-00000042, or the folder that PartitionCheckpoint writes to."


def place(text: str) -> Path:
    """Return the path that a user means.

    A link that is called like a checkpoint is left as it is, and refused like by a resumption.
    """
    path = Path(text)
    is_named = parse_checkpoint_name(path.name) is not None
    return path if is_named else Path(os.path.realpath(path))


def checkpoints_at(fs: Fs, path: Path) -> list[Path]:
    """Return a checkpoint itself, or those of a root.

    Raises:
        NoCheckpointFound: If there are none.
        OSError: If the folder cannot be read.
    """
    if parse_checkpoint_name(path.name) is not None:
        return [path]
    names = fs.list_names(path)
    found = [path / name for name in names if parse_checkpoint_name(name) is not None]
    if not found and MANIFEST not in names:
        raise NoCheckpointFound(str(path))
    return found or [path]  # one in quarantine has another name


def checkpoint_at(fs: Fs, text: str, options: argparse.Namespace) -> Path:
    """Return one checkpoint: of a root the one to resume from.

    Raises:
        CheckpointError: If there is none, or none that is good.
        OSError: If the folder cannot be read.
    """
    path = place(text)
    if checkpoints_at(fs, path) == [path]:
        return path
    choice = choose_checkpoint(fs, path)
    for _, reason in choice.rejections:
        say(f"skipped: {reason}", options)
    say(f"{choice.path.name} of {path}", options)
    return choice.path


def explained(err: Exception) -> str:
    """Return what is wrong, and what to name where nothing was found."""
    if isinstance(err, NoCheckpointFound):
        return f"{err}. {HINT}"
    is_place = isinstance(err, (FileNotFoundError, NotADirectoryError))
    return f"{told(err)} {HINT}" if is_place else told(err)


def exit_code_of(err: Exception, bad: int = 1) -> int:
    """Return the exit code that an error stands for.

    Args:
        err: The error.
        bad: That of a checkpoint or record that is not right.
    """
    if isinstance(err, InvalidConfig):
        return USAGE
    if isinstance(err, UnsupportedFormat):
        return OTHER_FORMAT
    is_missing = isinstance(err, NoCheckpointFound) or not isinstance(err, CheckpointError)
    # What the file system said of a file that it could not read.
    is_unread = isinstance(err, Corrupt) and isinstance(err.__cause__, OSError)
    return UNREADABLE if is_missing or is_unread else bad
