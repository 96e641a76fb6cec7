"""The file that stands for the checkpoint of an epoch where that is a folder elsewhere."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

from lightning_elche.contracts.runfolder.durable import write_durably
from lightning_elche.contracts.runfolder.jsonfile import read_object
from lightning_elche.contracts.runfolder.rundir import lies_within
from lightning_elche.contracts.strictjson import dump_strictly

__all__ = ["POINTER", "read_pointer", "write_pointer"]

POINTER = "elche/epoch-pointer-v1"


def write_pointer(path: Path, *, run_dir: Path, folder: Path) -> None:
    """Let a file stand for a checkpoint.

    Args:
        path: The file.
        run_dir: Folder of the run.
        folder: Of the checkpoint, below it.

    Raises:
        OSError: If the file cannot be written.
    """
    relative = folder.resolve().relative_to(run_dir.resolve()).as_posix()
    write_durably(path, dump_strictly({"schema": POINTER, "checkpoint": relative}, indent=2))


def read_pointer(path: Path, *, run_dir: Path) -> PurePosixPath:
    """Return where the checkpoint is that a file stands for, relative to the folder of the run.

    Raises:
        OSError: If the file cannot be read.
        ValueError: If it does not name a folder of the run; the message says why.
    """
    facts = read_object(path)
    if facts.get("schema") != POINTER:
        raise ValueError(f"`schema` must be {POINTER!r}, got {facts.get('schema')!r}")
    told = facts.get("checkpoint")
    if not isinstance(told, str) or not told or "\0" in told:
        raise ValueError(f"`checkpoint` must be the path of a folder, got {told!r}")
    relative = PurePosixPath(told)
    if relative.is_absolute() or ".." in relative.parts:
        raise ValueError(f"`checkpoint` must lie in the folder of the run, got {told!r}")
    folder = run_dir / relative
    if folder.is_symlink() or not lies_within(folder, run_dir):
        raise ValueError(f"`checkpoint` must be no link and lie in `run_dir`, got {told!r}")
    if not folder.is_dir():
        raise ValueError(f"the checkpoint {told} is missing")
    return relative
