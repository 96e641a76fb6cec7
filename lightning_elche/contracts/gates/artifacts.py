"""GATE-TRAIN-002: every completed epoch has a checkpoint, and metadata that fit it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path, PurePosixPath

from lightning_elche.contracts.filedigest import sha256_of_file
from lightning_elche.contracts.gates import ids as gateids
from lightning_elche.contracts.gates.tally import MAX_FINDINGS, Tally
from lightning_elche.contracts.model import Contract
from lightning_elche.contracts.records import EpochRecord
from lightning_elche.contracts.runfolder.epochdir import EpochFolder
from lightning_elche.contracts.runfolder.partitioned import (
    FILE_SHA256,
    CheckpointFault,
    PartitionedCheckpoint,
    read_partitioned,
)
from lightning_elche.contracts.runfolder.pointer import read_pointer
from lightning_elche.contracts.verdicts import GateResult, Location

__all__ = ["ArtifactEvidence", "Digest", "judge_artifacts"]

Digest = Callable[[Path, str], str | None]

DEFAULT_ALGORITHM = "elche-state-v1"
HEX_DIGEST = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, kw_only=True)
class ArtifactEvidence:
    """What the gate is judged by.

    Attributes:
        epochs: The files.
        epochs_completed: Number of completed epochs, `None` if nobody has told.
        failures: What could not be written while the run went on.
    """

    epochs: EpochFolder
    epochs_completed: int | None
    failures: tuple[str, ...]


def judge_artifacts(
    contract: Contract, evidence: ArtifactEvidence, *, digest: Digest | None
) -> GateResult:
    """Judge the artifacts of all completed epochs.

    Args:
        contract: Says where they lie.
        evidence: What there is.
        digest: Recomputes the digest of the optimizer states in a checkpoint by the name of the
            algorithm; `None` if it cannot, or if nobody can.
    """
    tally = Tally(gateids.ARTIFACTS)
    for message in evidence.failures:
        tally.fail(f"could not be written: {message}")
    for problem in evidence.epochs.problems:
        tally.fail(f"{problem.at.path}: {problem.message}", problem.at)
    _judge_numbers(tally, contract, evidence)
    for record in evidence.epochs.records:
        _judge_checkpoint(tally, evidence.epochs, record, digest)
    return tally.result(f"{evidence.epochs_completed} epochs")


def _judge_numbers(tally: Tally, contract: Contract, evidence: ArtifactEvidence) -> None:
    if contract.checkpoint_template is None or contract.metadata_template is None:
        tally.doubt("the contract does not say where checkpoints and metadata lie")
        return
    epochs = evidence.epochs
    completed = evidence.epochs_completed
    if completed is None:
        tally.doubt("nobody has told how many epochs were completed")
        completed = max((*epochs.metadata, *epochs.checkpoints), default=-1) + 1
    elif completed == 0:
        tally.doubt("no epoch was completed")
    for name, found in (("checkpoint", epochs.checkpoints), ("metadata", epochs.metadata)):
        # A forged number of epochs may be beyond what can be counted to.
        missing = (epoch for epoch in range(completed) if epoch not in found)
        for epoch in islice(missing, MAX_FINDINGS):
            tally.fail(f"epoch {epoch} has no {name}")
        for epoch in sorted(epoch for epoch in found if epoch >= completed):
            tally.fail(f"epoch {epoch} has a {name}, but {completed} epochs were completed")


def _judge_checkpoint(
    tally: Tally, epochs: EpochFolder, record: EpochRecord, digest: Digest | None
) -> None:
    path = epochs.checkpoints.get(record.epoch)
    told = record.optimizer_state_sha
    if path is None or not HEX_DIGEST.fullmatch(told):
        return
    at = Location(path=epochs.checkpoint_paths[record.epoch])
    algorithm = record.optimizer_state_algo or DEFAULT_ALGORITHM
    if algorithm == FILE_SHA256:
        _judge_folder(tally, epochs.run_dir, record, path)
        return
    _judge_bytes(tally, record, path, at)
    found = None if digest is None else digest(path, algorithm)
    if found is None:
        tally.doubt("the digest of the optimizer states was not recomputed")
    elif found != told:
        tally.fail(f"{at.path}: the digest of the optimizer states is {found}, not {told}", at)


def _judge_bytes(tally: Tally, record: EpochRecord, path: Path, at: Location) -> None:
    size = path.stat().st_size
    if record.checkpoint_bytes not in (None, size):
        tally.fail(f"{at.path}: has {size} bytes, not {record.checkpoint_bytes}", at)
    elif record.checkpoint_sha256 not in (None, sha256_of_file(path)):
        tally.fail(f"{at.path}: its digest is not {record.checkpoint_sha256}", at)


def _judge_folder(tally: Tally, run_dir: Path, record: EpochRecord, path: Path) -> None:
    """Judge a checkpoint that is a folder, to which the file of the epoch points."""
    place = PurePosixPath(path.relative_to(run_dir).as_posix())
    try:
        folder = read_pointer(path, run_dir=run_dir)
        place = folder
        found = read_partitioned(run_dir, folder)
    except CheckpointFault as err:
        if err.is_unknown:
            tally.doubt(f"{err.path}: {err}")
        else:
            tally.fail(f"{err.path}: {err}", Location(path=str(err.path)))
    except (OSError, ValueError) as err:
        tally.fail(f"{place}: {err}", Location(path=str(place)))
    else:
        for message in _differences(record, found):
            tally.fail(f"{folder}: {message}", Location(path=str(folder)))


def _differences(record: EpochRecord, found: PartitionedCheckpoint) -> Iterator[str]:
    """Yield what the metadata of an epoch tell otherwise than its checkpoint."""
    sha = record.optimizer_state_sha
    if found.optimizer_state_sha != sha:
        made = found.optimizer_state_sha
        yield f"the digest of the optimizer states is {made}, not {sha}"
    if record.checkpoint_sha256 not in (None, found.content_sha256):
        yield f"its digest is {found.content_sha256}, not {record.checkpoint_sha256}"
    if record.checkpoint_bytes not in (None, found.bytes):
        yield f"has {found.bytes} bytes, not {record.checkpoint_bytes}"
    if found.label != f"epoch-{record.epoch}":
        yield f"is labelled {found.label!r}, not 'epoch-{record.epoch}'"
