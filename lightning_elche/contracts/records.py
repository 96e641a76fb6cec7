"""What a run records: one line per optimizer step, one file per epoch, one for the whole run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from operator import attrgetter
from typing import Any, Protocol

__all__ = ["EpochRecord", "RunRecord", "StepColumns", "StepLike", "StepRecord", "columns_of"]

RUN_SCHEMA = "elche/run-v1"


class StepLike(Protocol):
    """The six required fields of a step, and three more that a log may lack."""

    @property
    def step(self) -> int:
        """As of `StepRecord`."""
        ...

    @property
    def train_loss(self) -> float:
        """As of `StepRecord`."""
        ...

    @property
    def grad_norm(self) -> float:
        """As of `StepRecord`."""
        ...

    @property
    def lr(self) -> float:
        """As of `StepRecord`."""
        ...

    @property
    def tokens_per_sec(self) -> float:
        """As of `StepRecord`."""
        ...

    @property
    def gpu_util_pct(self) -> float:
        """As of `StepRecord`."""
        ...

    @property
    def wall_ms(self) -> float | None:
        """As of `StepRecord`."""
        ...

    @property
    def epoch(self) -> int | None:
        """As of `StepRecord`."""
        ...

    @property
    def attempt(self) -> int | None:
        """As of `StepRecord`."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class StepRecord:
    """One optimizer step.

    Attributes:
        step: Number of the step, from 0; skipped steps are not counted.
        train_loss: Mean loss of the step's batches.
        grad_norm: Total L2 norm of the gradients before clipping.
        lr: Learning rate that the step used, of the first parameter group.
        tokens_per_sec: Throughput over the step.
        gpu_util_pct: Utilization of the GPU, 0 to 100; 0 without one.
        wall_ms: Time from the begin of the step's first batch to the end of its last.
        epoch: The epoch, from 0.
        attempt: How many times the run was resumed before.
    """

    step: int
    train_loss: float
    grad_norm: float
    lr: float
    tokens_per_sec: float
    gpu_util_pct: float
    wall_ms: float | None = None
    epoch: int | None = None
    attempt: int | None = None


STEP_NAMES = tuple(own.name for own in fields(StepRecord))
STEP_FIELDS = attrgetter(*STEP_NAMES)


@dataclass(frozen=True, slots=True, kw_only=True)
class StepColumns:
    """Many optimizer steps in the order of the log, a list per field; all of equal length.

    Whoever makes one has seen to the types: integers, numbers, and no booleans. The last three are
    `None` unless every step has the field; fields that the lists leave out are not judged.

    Attributes:
        step: Numbers of the steps.
        train_loss: As in `StepRecord`, and so are the others.
        grad_norm: See there.
        lr: See there.
        tokens_per_sec: See there.
        gpu_util_pct: See there.
        wall_ms: See there.
        epoch: See there.
        attempt: See there.
    """

    step: list[int]
    train_loss: list[float]
    grad_norm: list[float]
    lr: list[float]
    tokens_per_sec: list[float]
    gpu_util_pct: list[float]
    wall_ms: list[float] | None = None
    epoch: list[int] | None = None
    attempt: list[int] | None = None


def columns_of(records: Sequence[StepLike]) -> StepColumns:
    """Return steps as columns; those that not every step has are `None`."""
    columns = zip(*map(STEP_FIELDS, records), strict=True)
    by_name: dict[str, Any] = {
        name: None if None in column else list(column)
        for name, column in zip(STEP_NAMES, columns, strict=True)
    }
    return StepColumns(**by_name)


@dataclass(frozen=True, kw_only=True)
class EpochRecord:
    """One epoch, as its `.metadata.json` says; the first nine are required there.

    Attributes:
        epoch: From 0.
        train_loss: Mean over all steps of the epoch, of all logged ranks.
        val_loss: Validation loss at its end.
        train_ppl: `exp(train_loss)`.
        val_ppl: `exp(val_loss)`.
        optimizer_state_sha: Digest of the optimizer states in the checkpoint, 64 hex digits.
        wall_seconds: Duration of the epoch.
        tokens_seen: Tokens since the begin of the run, of all ranks.
        grad_norm_max: Largest gradient norm in the epoch.
        run_id: The run.
        attempt: How many times the run was resumed before.
        optimizer_state_algo: How `optimizer_state_sha` was made.
        optimizer_state_bytes: Size of the optimizer states.
        checkpoint_sha256: Digest of the checkpoint file, or of the content of its folder.
        checkpoint_bytes: Size of the file or, but for the manifest, of the folder.
        train_loss_last100: Mean over the last 100 steps of the epoch.
        batches: Batches of the rank that has trained the fewest in the epoch; `None` where ranks
            share the batches by their speed.
    """

    epoch: int
    train_loss: float
    val_loss: float
    train_ppl: float
    val_ppl: float
    optimizer_state_sha: str
    wall_seconds: float
    tokens_seen: int
    grad_norm_max: float
    run_id: str | None = None
    attempt: int | None = None
    optimizer_state_algo: str | None = None
    optimizer_state_bytes: int | None = None
    checkpoint_sha256: str | None = None
    checkpoint_bytes: int | None = None
    train_loss_last100: float | None = None
    batches: int | None = None


@dataclass(frozen=True, kw_only=True)
class RunRecord:
    """The run as a whole, as `run.json` says.

    Attributes:
        run_id: Unique to the run, also after it was resumed.
        attempt: How many times it was resumed.
        status: "RUNNING", "OK", "EARLY_STOP", "ABORTED" or "INTERRUPTED".
        stop_reason: "target", "max_epochs", "max_steps", "patience", "external", or the name of
            the abort; `None` while it runs.
        exit_code: Of the training process; `None` while it runs.
        started_at: When this attempt began, ISO 8601 in UTC.
        updated_at: When this file was written.
        epochs_completed: Epochs with a validation loss.
        steps: Optimizer steps applied by rank 0.
        planned_batches: Batches of an epoch, `None` if nobody knows.
        tokens_seen: Of all ranks.
        contract: "path", "id", "version" and "sha256" of the contract.
        mode: "finetune" or "from_scratch".
        vocab_size: Number of tokens, for "from_scratch".
        hyperparameters: "regime", "lr_max", "warmup_steps", "target_val_loss" as used.
        explicit: Names of those that the user set.
        seed: The seed, if `seed_everything` was called.
        determinism: Flags of the frameworks, by name.
        provenance: "synthetic", "fast_dev_run", "overfit_batches", "limit_train_batches",
            "limit_val_batches"; `None` if nobody has told.
        device: "cpu", "cuda", ...
        gpu_util_source: "nvml", "none" (no GPU) or "unavailable" (a GPU, but no NVML).
        token_unit: "token" or "sample".
        world_size: Number of ranks.
        logged_ranks: Ranks that write a log.
        versions: Of the packages, by name.
        artifact_failures: What could not be written.
        last_val_loss: "epoch" and "val_loss" of the last completed epoch.
        best_val_loss: The same of the best one.
        ended_at: When the run ended.
        schema: Names the format.
    """

    run_id: str
    attempt: int
    status: str
    stop_reason: str | None
    exit_code: int | None
    started_at: str
    updated_at: str
    epochs_completed: int
    steps: int
    planned_batches: int | None
    tokens_seen: int
    contract: Mapping[str, str | None]
    mode: str
    vocab_size: int | None
    hyperparameters: Mapping[str, Any]
    explicit: tuple[str, ...]
    seed: int | None
    determinism: Mapping[str, Any]
    provenance: Mapping[str, Any] | None
    device: str
    gpu_util_source: str
    token_unit: str
    world_size: int
    logged_ranks: tuple[int, ...]
    versions: Mapping[str, str] = field(default_factory=dict)
    artifact_failures: tuple[str, ...] = ()
    last_val_loss: Mapping[str, float] | None = None
    best_val_loss: Mapping[str, float] | None = None
    ended_at: str | None = None
    schema: str = RUN_SCHEMA
