"""The runs of this machine: a small file each, in one folder."""

from __future__ import annotations

import contextlib
import hashlib
import os
import socket
from dataclasses import dataclass
from pathlib import Path

from lightning_elche.contracts.runfolder.jsonfile import read_object
from lightning_elche.contracts.strictjson import dump_strictly
from lightning_elche.coordination.atomic_file import replace_file
from lightning_elche.coordination.registry import liveness
from lightning_elche.coordination.registry.config import make_folder
from lightning_elche.coordination.registry.liveness import Process, own_process
from lightning_elche.coordination.registry.wire import from_wire, to_wire

__all__ = ["RunEntry", "add_run", "is_alive", "list_runs", "remove_run"]

FOLDER = "runs"


@dataclass(frozen=True, kw_only=True)
class RunEntry:
    """A run that has begun.

    Attributes:
        run_folder: Where it writes, an absolute path.
        process: That of rank 0.
        host: Where that runs.
        started_at: When it was entered, in seconds since 1970.
    """

    run_folder: str
    process: Process
    host: str
    started_at: float


def add_run(coord_dir: Path, run_folder: str, *, started_at: float) -> Path:
    """Enter a run of this process, drop those whose process is gone, and return the file.

    Args:
        coord_dir: The folder that all runs of this user share on this machine.
        run_folder: Where the run writes; an older entry for it is replaced.
        started_at: Now, in seconds since 1970.

    Raises:
        ValueError: If the folder is a file.
        OSError: If it cannot be written to.
    """
    make_folder(coord_dir / FOLDER)
    for other in list_runs(coord_dir):
        if not is_alive(other):
            _file_of(coord_dir, other.run_folder).unlink(missing_ok=True)
    entry = RunEntry(
        run_folder=run_folder,
        process=own_process(),
        host=socket.gethostname(),
        started_at=started_at,
    )
    path = _file_of(coord_dir, run_folder)
    replace_file(path, dump_strictly(to_wire(entry)))
    return path


def remove_run(coord_dir: Path, run_folder: str) -> None:
    """Remove the entry of a run of this process, if it is not that of another one by now."""
    path = _file_of(coord_dir, run_folder)
    entry = _read(path)
    if entry is not None and entry.process == own_process():
        path.unlink(missing_ok=True)


def list_runs(coord_dir: Path) -> tuple[RunEntry, ...]:
    """Return the runs of this host, the oldest first; files that cannot be read are left out."""
    try:
        names = sorted(os.listdir(coord_dir / FOLDER))
    except (FileNotFoundError, NotADirectoryError):
        return ()
    found = (_read(coord_dir / FOLDER / name) for name in names if name.endswith(".json"))
    own = (entry for entry in found if entry is not None and entry.host == socket.gethostname())
    return tuple(sorted(own, key=lambda entry: (entry.started_at, entry.run_folder)))


def is_alive(entry: RunEntry) -> bool:
    """Return whether the process of a run of this host lives; those of former boots do not."""
    return liveness.is_alive(entry.process) is True


def _file_of(coord_dir: Path, run_folder: str) -> Path:
    digest = hashlib.sha256(os.fsencode(run_folder)).hexdigest()
    return coord_dir / FOLDER / f"{digest[:16]}.json"


def _read(path: Path) -> RunEntry | None:
    """Return an entry, `None` if it is gone or is none."""
    with contextlib.suppress(OSError, ValueError):
        return from_wire(RunEntry, read_object(path))
    return None
