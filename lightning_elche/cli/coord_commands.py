"""`elche coord halt`, `resume`, `pause` and `checkpoint`: files that a run looks for."""

from __future__ import annotations

import argparse
import socket
import time
from pathlib import Path

from lightning_elche.cli.coord_places import NO_RUN, NoRun, look, only_run, run_at
from lightning_elche.cli.coord_registry import opened
from lightning_elche.cli.outcome import Line, Outcome
from lightning_elche.coordination.registry.edits import user_name
from lightning_elche.coordination.stopping.commands import remove_command, write_command

__all__ = ["checkpoint", "halt", "pause", "resume", "who"]

TAKEN_BACK = ("HALT", "PAUSE")


def halt(options: argparse.Namespace) -> Outcome:
    """End a run, or keep all from starting on this machine."""
    if options.folder is not None:
        return _command("HALT", options)
    opened(options).halt(options.reason)
    return _done("nothing starts on this machine until `elche coord resume`")


def resume(options: argparse.Namespace) -> Outcome:
    """Take back what `halt` and `pause` have asked for."""
    if options.folder is None:
        was_halted = opened(options).resume()
        return _done("starts are allowed again" if was_halted else "starts were not halted")
    try:
        folder = run_at(options.folder)
    except NoRun as err:
        return Outcome.error("NoRun", str(err), options.folder, NO_RUN)
    taken = [name for name in TAKEN_BACK if remove_command(folder, name)]
    return _done(f"{folder}: {' and '.join(taken) or 'nothing'} taken back")


def pause(options: argparse.Namespace) -> Outcome:
    """Make a run wait at its next averaging event."""
    return _command("PAUSE", options)


def checkpoint(options: argparse.Namespace) -> Outcome:
    """Have a run save a checkpoint at its next averaging event."""
    return _command("CHECKPOINT", options)


def who() -> str:
    """Return the name of the user, and of this machine."""
    return f"{user_name()}@{socket.gethostname()}"


def _command(name: str, options: argparse.Namespace) -> Outcome:
    try:
        folder = _running(options.folder)
    except NoRun as err:
        return Outcome.error("NoRun", str(err), options.folder or "", NO_RUN)
    path = write_command(folder, name, at=time.time(), by=who(), reason=options.reason)
    return _done(f"{path} is there; the run sees it within a second or two")


def _running(given: str | None) -> Path:
    """Return the folder of a run that goes on.

    Raises:
        NoRun: If there is none: the file would be for the next run in that folder.
    """
    folder = only_run() if given is None else run_at(given)
    seen = look(folder)
    if seen.has_ended:
        raise NoRun(f"The run in {folder} has ended ({seen.state}).")
    return folder


def _done(text: str) -> Outcome:
    return Outcome(lines=(Line(text, "DONE", is_calm=True),), data={"done": text})
