"""Files by which a run is halted, paused, or asked for a checkpoint."""

from __future__ import annotations

import contextlib
import json
import os
from dataclasses import dataclass
from pathlib import Path

from lightning_elche.coordination.atomic_file import replace_file

__all__ = ["COMMANDS", "Command", "read_command", "remove_command", "write_command"]

COMMANDS = ("HALT", "PAUSE", "CHECKPOINT")
MAX_BYTES = 65536


@dataclass(frozen=True, kw_only=True)
class Command:
    """What a command file says.

    Attributes:
        name: One of `COMMANDS`.
        at: When it was given, in seconds of the epoch; 0.0 if it does not say.
        by: Who gave it; "" if it does not say.
        reason: Why; "" if it does not say.
        stamp: Tells this file from a later one of the same name.
    """

    name: str
    at: float = 0.0
    by: str = ""
    reason: str = ""
    stamp: tuple[int, int] = (0, 0)

    def __str__(self) -> str:
        who = f" by {self.by}" if self.by else ""
        return f"{self.name}{who}: {self.reason}" if self.reason else f"{self.name}{who}"


def write_command(folder: str | Path, name: str, *, at: float, by: str, reason: str = "") -> Path:
    """Write a command; what was there is replaced.

    Args:
        folder: Of the run, or of the host for its HALT; made if it is not there.
        name: One of `COMMANDS`.
        at: Now, in seconds of the epoch.
        by: Who gives it.
        reason: Why.

    Returns:
        The file.
    """
    path = _path(folder, name)
    path.parent.mkdir(parents=True, exist_ok=True)
    words = json.dumps({"at": at, "by": by, "reason": reason})
    replace_file(path, f"{words}\n".encode())
    return path


def read_command(folder: str | Path, name: str) -> Command | None:
    """Return a command, `None` if it was not given; a file counts, whatever is in it.

    Args:
        folder: As of `write_command`.
        name: One of `COMMANDS`.

    Raises:
        OSError: If the folder cannot be read.
    """
    path = _path(folder, name)
    try:
        with path.open("rb") as file:
            found = os.fstat(file.fileno())
            words = _words(file.read(MAX_BYTES))
    except FileNotFoundError:
        return None
    except (IsADirectoryError, PermissionError):
        found, words = path.stat(), {}
    at = words.get("at")
    return Command(
        name=name,
        at=float(at) if isinstance(at, int | float) else 0.0,
        by=str(words.get("by", "")),
        reason=str(words.get("reason", "")),
        stamp=(found.st_ino, found.st_mtime_ns),
    )


def remove_command(folder: str | Path, name: str, served: Command | None = None) -> bool:
    """Remove a command and return whether it was there.

    Args:
        folder: As of `write_command`.
        name: One of `COMMANDS`.
        served: The one that was carried out: one that was given since then stays.
    """
    present = read_command(folder, name)
    if present is None or (served is not None and present.stamp != served.stamp):
        return False
    with contextlib.suppress(FileNotFoundError):
        _path(folder, name).unlink()
    return True


def _path(folder: str | Path, name: str) -> Path:
    if name not in COMMANDS:
        raise ValueError(f"`name` must be one of {', '.join(COMMANDS)}, got {name!r}.")
    return Path(folder) / name


def _words(content: bytes) -> dict[str, object]:
    try:
        words = json.loads(content)
    except ValueError:
        return {}
    return words if isinstance(words, dict) else {}
