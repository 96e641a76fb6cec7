"""Where runs are, and what they last said of themselves."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path

from lightning_elche.contracts.runfolder.jsonfile import read_object
from lightning_elche.contracts.strictjson import number_of
from lightning_elche.coordination.registry.config import RegistryConfig, check_folder
from lightning_elche.coordination.run_index import RunEntry, is_alive, list_runs
from lightning_elche.coordination.status import STATUS_NAME

__all__ = [
    "NONE_KNOWN",
    "NO_RUN",
    "NoRun",
    "Seen",
    "SeveralRuns",
    "coord_dir",
    "look",
    "look_at_all",
    "only_run",
    "run_at",
]

NO_RUN = 3
FOLDER = "elche"
STALE_S = 10.0
NONE_KNOWN = (
    "No run with Coordination is known to this machine. Set `ELCHE_COORD_DIR` for those that should"
    " be, and here."
)
ENDED = ("STOPPED", "ERROR")


class NoRun(Exception):
    """There is no run where one was looked for."""


class SeveralRuns(ValueError):
    """There are several runs, and none was named."""


@dataclass(frozen=True, kw_only=True)
class Seen:
    """What a run last said of itself.

    Attributes:
        folder: Where it writes.
        status: The content of its `status.json`, empty if it has none that can be read.
        age_s: How old that is.
        is_gone: Whether its process is known not to live any more.
    """

    folder: Path
    status: dict[str, object]
    age_s: float
    is_gone: bool = False

    @property
    def state(self) -> str:
        """The state that the run is in, "UNKNOWN" if it has not said so."""
        return str(self.status.get("state", "UNKNOWN"))

    @property
    def has_ended(self) -> bool:
        """Whether it will not go on."""
        return self.is_gone or self.state in ENDED

    @property
    def is_stale(self) -> bool:
        """Whether it should have said more since; what has ended has no more to say."""
        return not self.has_ended and self.age_s > STALE_S

    @property
    def is_healthy(self) -> bool:
        """Whether it is well and goes on."""
        return bool(self.status.get("healthy")) and not self.has_ended and not self.is_stale


def coord_dir() -> Path:
    """Return the folder that all runs of this user share on this machine.

    Raises:
        ValueError: If it is a file.
    """
    folder = RegistryConfig().completed(os.environ).folder
    assert folder is not None  # of what is complete
    check_folder(Path(folder))
    return Path(folder)


def run_at(path: str) -> Path:
    """Return the folder that a run writes to, from that in which it logs.

    Raises:
        NoRun: If there is none.
    """
    given = Path(path).absolute()
    for folder in (given / FOLDER, given):
        if (folder / STATUS_NAME).is_file():
            return folder
    raise NoRun(f"{path} has no {FOLDER}/{STATUS_NAME}. Name the folder in which a run logs.")


def only_run() -> Path:
    """Return the folder of the run of this machine.

    Raises:
        NoRun: If there is none.
        SeveralRuns: If there are several.
    """
    folders = [entry.run_folder for entry in list_runs(coord_dir()) if is_alive(entry)]
    if not folders:
        raise NoRun(f"{NONE_KNOWN} Or name the folder in which it logs.")
    if len(folders) > 1:
        raise SeveralRuns(f"`RUN` must be named, as there are several: {', '.join(folders)}.")
    return Path(folders[0])


def look(folder: Path) -> Seen:
    """Return what a run last said of itself.

    Raises:
        NoRun: If it has said nothing.
        ValueError: If its file cannot be understood.
    """
    entries = [entry for entry in list_runs(coord_dir()) if entry.run_folder == str(folder)]
    return _read(folder, is_gone=any(not is_alive(entry) for entry in entries))


def _read(folder: Path, *, is_gone: bool) -> Seen:
    path = folder / STATUS_NAME
    try:
        status, written_at = read_object(path), path.stat().st_mtime
    except FileNotFoundError as err:
        raise NoRun(f"{folder} has no {STATUS_NAME}.") from err
    except ValueError as err:
        raise ValueError(f"{path} {err}") from err
    said_at = number_of(status.get("written_at")) or written_at
    return Seen(
        folder=folder, status=status, age_s=max(0.0, time.time() - said_at), is_gone=is_gone
    )


def look_at_all() -> list[Seen]:
    """Return what all runs of this machine said of themselves, the oldest first."""
    return [_look_at(entry) for entry in list_runs(coord_dir())]


def _look_at(entry: RunEntry) -> Seen:
    folder, is_gone = Path(entry.run_folder), not is_alive(entry)
    try:
        return _read(folder, is_gone=is_gone)
    except (NoRun, ValueError, OSError):
        age_s = max(0.0, time.time() - entry.started_at)
        return Seen(folder=folder, status={}, age_s=age_s, is_gone=is_gone)
