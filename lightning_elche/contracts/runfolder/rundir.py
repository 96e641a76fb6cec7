"""The folder of a run: which files are there, and what those say that no gate judges."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

from lightning_elche.contracts.records import RunRecord
from lightning_elche.contracts.runfolder.eventlog import (
    Event,
    EventLog,
    current_events,
    read_events,
)
from lightning_elche.contracts.runfolder.names import (
    CONTRACT_COPY,
    RUN_FILE,
    events_name,
    rank_of_log,
    steps_name,
)
from lightning_elche.contracts.runfolder.runrecord import read_run
from lightning_elche.contracts.verdicts import Location
from lightning_elche.exceptions import ElCheError

__all__ = ["RunFolder", "RunUnreadable", "lies_within"]

Result = TypeVar("Result")


class RunUnreadable(ElCheError, OSError):
    """The folder of a run, or a file in it, cannot be read."""


@dataclass(frozen=True, kw_only=True)
class RunFolder:
    """The folder of a run.

    Attributes:
        path: Where it is.
        run: The run record, `None` if there is none.
        contract: The copy of the contract, `None` if there is none.
        step_logs: Where the step log of each rank is, `None` for one that should be there.
        events: The events of all ranks that still count.
        torn_events: Where the event log of a rank ends within a line.
    """

    path: Path
    run: RunRecord | None
    contract: Path | None
    step_logs: Mapping[int, Path | None]
    events: tuple[Event, ...]
    torn_events: tuple[Location, ...]

    @classmethod
    def open(cls, path: Path) -> RunFolder:
        """Look at a folder, and read all of it but step logs and epochs.

        Raises:
            RunUnreadable: If it is no folder of a run, or a file in it cannot be read.
        """
        if not path.is_dir():
            raise RunUnreadable(f"`RUN_DIR` must be the folder of a run, {path} is none.")
        run_file = _file(path, RUN_FILE)
        run = None if run_file is None else _read(run_file, partial(read_run, run_file))
        step_logs = _step_logs(path, run)
        if run is None and not step_logs:
            raise RunUnreadable(
                f"`RUN_DIR` must have {RUN_FILE} or {steps_name(0)}, {path} has neither. "
                "Train with `GateTrain(run_dir=...)`."
            )
        logs = tuple(_event_logs(path, step_logs))
        return cls(
            path=path,
            run=run,
            contract=_file(path, CONTRACT_COPY),
            step_logs=step_logs,
            events=current_events(event for log in logs for event in log.events),
            torn_events=tuple(log.torn_tail for log in logs if log.torn_tail is not None),
        )


def lies_within(path: Path, folder: Path) -> bool:
    """Return whether a file really is in a folder, and not behind a link that leads out of it."""
    return path.resolve().is_relative_to(folder.resolve())


def _file(folder: Path, name: str) -> Path | None:
    path = folder / name
    if not path.is_symlink() and not path.exists():
        return None
    if not lies_within(path, folder):
        raise RunUnreadable(f"{path} must lie in `RUN_DIR`, but is a link that leads out of it.")
    return path


def _step_logs(folder: Path, run: RunRecord | None) -> dict[int, Path | None]:
    declared = () if run is None else run.logged_ranks
    found = (rank_of_log(one.name) for one in folder.iterdir())
    ranks = {*declared, *(rank for rank in found if rank is not None)}
    return {rank: _file(folder, steps_name(rank)) for rank in sorted(ranks)}


def _event_logs(folder: Path, ranks: Mapping[int, Path | None]) -> Iterator[EventLog]:
    for rank in sorted({0, *ranks}):
        file = _file(folder, events_name(rank))
        if file is not None:
            yield _read(file, partial(read_events, file, rank=rank))


def _read(path: Path, read: Callable[[], Result]) -> Result:
    try:
        return read()
    except ValueError as err:
        raise RunUnreadable(f"{path} {err}.") from err
    except OSError as err:
        raise RunUnreadable(str(err)) from err
