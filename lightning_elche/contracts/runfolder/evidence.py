"""All that the folder of a run has to say, read once for all gates."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from lightning_elche.contracts.aborts import violation_of
from lightning_elche.contracts.gates import ids as gateids
from lightning_elche.contracts.gates.stepgates import StepGates
from lightning_elche.contracts.model import Contract
from lightning_elche.contracts.records import EpochRecord, RunRecord
from lightning_elche.contracts.runfolder.epochdir import EpochFolder, read_epochs
from lightning_elche.contracts.runfolder.epochmeta import record_of
from lightning_elche.contracts.runfolder.eventlog import Event, resumed_at
from lightning_elche.contracts.runfolder.names import steps_name
from lightning_elche.contracts.runfolder.rundir import RunFolder
from lightning_elche.contracts.steplog.reading import read_steps
from lightning_elche.contracts.verdicts import Finding, Location, Severity, Violation

__all__ = ["RunEvidence", "gather_evidence"]


@dataclass(frozen=True, kw_only=True)
class RunEvidence:
    """What was read.

    Attributes:
        run: The run record, `None` if there is none.
        events: The events that count.
        logs: The gates over the step log of each rank.
        torn_events: Where an event log ends within a line, unless the run may be going on.
        missing_logs: Ranks whose log should be there and is not.
        notes: What the reader of the logs has to say.
        epochs: The files of the epochs.
    """

    run: RunRecord | None
    events: tuple[Event, ...]
    logs: Mapping[int, StepGates]
    torn_events: tuple[Location, ...]
    missing_logs: tuple[int, ...]
    notes: tuple[Finding, ...]
    epochs: EpochFolder

    @property
    def records(self) -> tuple[EpochRecord, ...]:
        """The epochs in order, also those whose metadata are told only by a failure to write."""
        told = {one.epoch: one for one in self._unwritten()}
        told |= {one.epoch: one for one in self.epochs.records}
        return tuple(told[epoch] for epoch in sorted(told))

    @property
    def aborts(self) -> Iterator[tuple[Event, Violation | None]]:
        """The ABORT events, and what each tells; `None` if that is no known abort."""
        for event in self.events:
            if event.name == "ABORT":
                yield event, violation_of(event.facts)

    def _unwritten(self) -> Iterator[EpochRecord]:
        for event in self.events:
            facts = event.facts.get("metadata")
            if event.name == "CKPT_FAILED" and event.epoch is not None and isinstance(facts, dict):
                record = record_of(facts, epoch=event.epoch)
                if record is not None:
                    yield record


def gather_evidence(folder: RunFolder, contract: Contract, *, is_live: bool) -> RunEvidence:
    """Read the step logs and the epochs of a run.

    Args:
        folder: The folder of the run.
        contract: Says where the files lie, and what is judged.
        is_live: The run may be going on: what has not yet been completed is not looked at.

    Raises:
        OSError: If a step log cannot be read.
    """
    logs: dict[int, StepGates] = {}
    notes: list[Finding] = []
    for rank, path in (folder.step_logs or {0: None}).items():
        name = steps_name(rank)
        logs[rank] = StepGates(contract, path=name)
        if path is None:
            logs[rank].missing(f"{name} is missing")
        else:
            resumed = resumed_at(folder.events, rank=rank)
            read = read_steps(path, logs[rank], name=name, is_live=is_live, resumed_at=resumed)
            notes += read.findings
    if is_live:
        notes += map(_incomplete, folder.torn_events)
    run = folder.run
    return RunEvidence(
        run=run,
        events=folder.events,
        logs=logs,
        torn_events=() if is_live else folder.torn_events,
        missing_logs=tuple(rank for rank in logs if folder.step_logs.get(rank) is None),
        notes=tuple(notes),
        epochs=read_epochs(
            folder.path,
            contract,
            run_id=None if run is None else run.run_id,
            before_epoch=run.epochs_completed if is_live and run is not None else None,
        ),
    )


def _incomplete(at: Location) -> Finding:
    message = "the last line is not complete yet"
    return Finding(rule=gateids.METRICS, severity=Severity.NOTE, message=message, at=at)
