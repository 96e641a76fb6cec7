"""The errors of plans, executors, replay and checkpoints."""

from __future__ import annotations

import errno
import pickle
import subprocess
import sys

import pytest

from lightning_elche.exceptions import ElCheError
from lightning_elche.partition import errors
from lightning_elche.partition.plan import PartitionId

ONE = PartitionId(1)
TEXTS = [
    (
        errors.InvalidConfig("no phase"),
        "invalid control-plane configuration: no phase",
    ),
    (errors.InvalidPartitionCount(), "partition_count must be greater than zero"),
    (
        errors.SingleProcessHasAssignments(),
        "single-process partition plan must not contain row assignments",
    ),
    (errors.WorkerCountMismatch(3, 2), "worker count 2 does not match assignment count 3"),
    (
        errors.NonContiguousRange(ONE, 5, 4),
        "partition PartitionId(1) starts at row 5, expected 4",
    ),
    (
        errors.InvertedRange(ONE, 4, 3),
        "partition PartitionId(1) ends at row 3, before its start at row 4",
    ),
    (
        errors.RangeOutOfBounds(ONE, 11, 10),
        "partition PartitionId(1) ends at row 11, beyond agent count 10",
    ),
    (errors.EmptyRange(ONE), "partition PartitionId(1) has an empty row range"),
    (errors.CoverageMismatch(9, 10), "static partition plan covers 9 rows, expected 10"),
    (errors.DuplicatePartition(ONE), "partition PartitionId(1) is assigned more than once"),
    (errors.DuplicateWorker("a"), "worker a is registered more than once"),
    (
        errors.MissingPartitionWorker(ONE, "a"),
        "partition PartitionId(1) references missing worker a",
    ),
    (
        errors.PartitionExecution(ONE, "move", "boom"),
        "partition PartitionId(1) phase move failed: boom",
    ),
    (errors.WorkerFailed(ONE, "boom"), "partition PartitionId(1) worker failed: boom"),
    (
        errors.PhaseFailed(ONE, "move", "boom"),
        "partition PartitionId(1) phase move failed: boom",
    ),
    (errors.MissingEndpoint(ONE), "partition PartitionId(1) has no external endpoint"),
    (
        errors.ResultCountMismatch(expected=3, actual=2),
        "partition executor returned 2 results, expected 3",
    ),
    (
        errors.UnsupportedBackend(ONE, "cuda_device:0", "SerialExecutor"),
        "partition PartitionId(1) needs backend cuda_device:0, which SerialExecutor does not "
        "support",
    ),
    (errors.ReassemblyError("no"), "partition checkpoint error: no"),
    (
        errors.ReplayDivergence(3, expected=1, actual=0xCBF29CE484222325),
        "replay diverged at step 3: expected 0x0000000000000001, got 0xcbf29ce484222325",
    ),
    (
        errors.ReplayStepMismatch(3, 4),
        "replay expected step 3 but runtime produced step 4",
    ),
    (errors.ReplayExhausted(3), "replay has no expected fingerprint for step 3"),
    (errors.ReplayIncomplete(3), "replay ended with 3 expected fingerprints left"),
    (errors.ReplayFormatError(2, "it is no JSON"), "replay line 2 is not readable: it is no JSON"),
    (
        errors.ReplicaDivergence(5, 40, (2,), ((1, 1), (1, 1), (1, 2))),
        "replicas differ after averaging 5 (step 40), suspect ranks: (2,)",
    ),
    (errors.Incomplete("c", "no manifest"), "checkpoint c is incomplete: no manifest"),
    (errors.Corrupt("c", "digest"), "checkpoint c is corrupt: digest"),
    (
        errors.Corrupt("c", "digest", file="model.safetensors", partition=1, rows=(4, 7)),
        "checkpoint c is corrupt: digest (model.safetensors, partition 1, rows 4..7)",
    ),
    (errors.PlanMismatch("c", "rows"), "checkpoint c does not match its plan: rows"),
    (
        errors.UnsupportedFormat("c", "v2", "v1"),
        "checkpoint c has format 'v2', this release reads 'v1'",
    ),
    (
        errors.UnsupportedState("/a/0", "socket"),
        "the state at /a/0 is of type socket, which a checkpoint cannot hold",
    ),
    (errors.UnsafePath("../x", "it leads out"), "path '../x' is not safe: it leads out"),
    (
        errors.DivergentWriters("c", "aa", "bb"),
        "checkpoint c exists with content aa, this one has content bb",
    ),
    (
        errors.WriteFailed("c", "disk full", errno=28),
        "checkpoint c could not be written: disk full",
    ),
    (
        errors.DurabilityUncertain("c", "fsync"),
        "checkpoint c was published, but may not be durable: fsync",
    ),
    (errors.NoCheckpointFound("r"), "no checkpoint found at r"),
    (
        errors.NoValidCheckpoint("r", (("step-1", "torn"), ("step-2", "late"))),
        "no valid checkpoint at r: step-1: torn; step-2: late",
    ),
]


@pytest.mark.parametrize(("error", "text"), TEXTS, ids=[type(e).__name__ for e, _ in TEXTS])
def test_error_says_what_it_is(error: errors.PartitionError, text: str) -> None:
    """The text of each error is the one that users know."""
    assert str(error) == text
    assert isinstance(error, ElCheError)


@pytest.mark.parametrize("error", [e for e, _ in TEXTS], ids=lambda e: type(e).__name__)
def test_error_survives_the_way_to_another_rank(error: errors.PartitionError) -> None:
    """A pickled error has its type, text and data, be they given by position or keyword."""
    other = pickle.loads(pickle.dumps(error))
    assert (type(other), str(other)) == (type(error), str(error))
    assert vars(other) == vars(error)


@pytest.mark.parametrize(
    ("error", "base"),
    [
        (errors.InvalidConfig, ValueError),
        (errors.EmptyRange, ValueError),
        (errors.EmptyRange, errors.PartitionPlanError),
        (errors.DuplicateWorker, errors.PartitionPlanError),
        (errors.WorkerFailed, errors.PartitionExecutorError),
        (errors.UnsupportedBackend, errors.PartitionExecutorError),
        (errors.ReplayFormatError, errors.ReplayError),
        (errors.ReplicaDivergence, RuntimeError),
        (errors.UnsupportedState, TypeError),
        (errors.WriteFailed, OSError),
        (errors.NoCheckpointFound, FileNotFoundError),
        (errors.NoValidCheckpoint, errors.CheckpointError),
    ],
)
def test_error_can_be_caught_by_its_kind(error: type[Exception], base: type[Exception]) -> None:
    """Errors are of the kinds that callers catch."""
    assert issubclass(error, base)


def test_all_errors_are_tested_here() -> None:
    """Each error that can be raised has its text above."""
    kinds = {getattr(errors, name) for name in errors.__all__}
    bases = {base for kind in kinds for base in kind.__mro__[1:]}
    assert kinds - bases == {type(error) for error, _ in TEXTS}


def test_system_errors_have_their_number() -> None:
    """Errors that are system errors, too, say which."""
    assert errors.WriteFailed("c", "disk full", errno=errno.ENOSPC).errno == errno.ENOSPC
    assert errors.NoCheckpointFound("r").errno == errno.ENOENT


def test_error_of_ones_own_has_a_text() -> None:
    """A subclass without fields shows what it was raised with."""
    assert str(errors.PartitionExecutorError("no way")) == "no way"


def test_errors_load_neither_torch_nor_numpy() -> None:
    """Errors can be imported where nothing heavy is."""
    code = (
        "import sys, lightning_elche.partition.errors\nprint({'torch', 'numpy'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == ("set()\n", "")
