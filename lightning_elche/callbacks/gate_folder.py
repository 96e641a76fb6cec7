"""The files that one rank writes for its run; what cannot be written is kept in mind."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

from lightning_elche.contracts.model import Contract
from lightning_elche.contracts.records import RunRecord, StepRecord
from lightning_elche.contracts.runfolder.artifacts import (
    supersede_epochs,
    write_contract_copy,
    write_run,
)
from lightning_elche.contracts.runfolder.jsonfile import read_object
from lightning_elche.contracts.runfolder.names import RUN_FILE, steps_name
from lightning_elche.contracts.runfolder.runlog import RunLog, utc_now

__all__ = ["GateFolder", "latest_attempt"]


def latest_attempt(run_dir: Path) -> int | None:
    """Return the attempt that a folder's run record is of; `None` if there is no record."""
    try:
        attempt = read_object(run_dir / RUN_FILE).get("attempt")
    except OSError:
        return None
    except ValueError:
        return 0  # a damaged record is one all the same
    return attempt if isinstance(attempt, int) else 0


class GateFolder:
    """Writes logs and records into the folder of a run.

    Args:
        run_dir: The folder.
        record: What is known of the run so far.
        rank: This rank; 0 writes what there is one of.

    Attributes:
        failures: What could not be written, in words, each once.
    """

    def __init__(self, run_dir: Path, record: RunRecord, *, rank: int) -> None:
        self.run_dir = run_dir
        self.record = record
        self.failures: list[str] = []
        self._is_zero = rank == 0
        self._name = steps_name(rank)
        self._log: RunLog | None = None
        self._lock = threading.Lock()
        if rank in record.logged_ranks:
            self.attempt(self._name, lambda: self._open(rank))

    def _open(self, rank: int) -> None:
        self._log = RunLog(self.run_dir, rank=rank, attempt=self.record.attempt)

    def begin(self, contract: Contract, *, epoch: int) -> None:
        """Write what a run begins with.

        Args:
            contract: Of the run.
            epoch: The first epoch that is not closed; what an earlier attempt has left of it, or of
                a later one, is moved out of the way.
        """
        if not self._is_zero:
            return
        attempt = self.record.attempt
        if attempt:
            self.attempt(
                "superseded epochs",
                lambda: supersede_epochs(self.run_dir, contract, from_epoch=epoch, attempt=attempt),
            )
        self.attempt("contract.yaml", lambda: write_contract_copy(self.run_dir, contract.text))
        self.publish(self.record)

    def steps(self, records: Iterable[StepRecord]) -> None:
        """Log steps; they are in the file afterwards."""
        self._write(self._name, lambda log: _log_all(log, records))

    def event(self, name: str, **facts: object) -> None:
        """Log an event."""
        self._write(f"event {name}", lambda log: log.event(name, **facts))

    def close(self) -> None:
        """Write what is left and close the files."""
        self._write(self._name, lambda log: log.close())
        self._log = None

    def _write(self, what: str, write: Callable[[RunLog], object]) -> None:
        with self._lock:  # an abort may come from the thread that exchanges parameters
            log = self._log
            if log is not None:
                self.attempt(what, lambda: write(log))

    def publish(self, record: RunRecord) -> None:
        """Take in what is known of the run by now; rank 0 writes it."""
        self.record = replace(record, updated_at=utc_now())
        if self._is_zero:
            self.attempt("run.json", lambda: write_run(self.run_dir, self.record))

    def attempt(self, what: str, write: Callable[[], object]) -> bool:
        """Write something; return whether that went well, and keep in mind if not."""
        try:
            write()
        except OSError as err:
            self.note_failure(f"{what}: {err.strerror or err}")
            return False
        return True

    def note_failure(self, words: str) -> None:
        """Keep in mind that something could not be written."""
        if words not in self.failures:
            self.failures.append(words)


def _log_all(log: RunLog, records: Iterable[StepRecord]) -> None:
    for record in records:
        log.step(record)
    log.flush()
