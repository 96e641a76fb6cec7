"""What every rank tells every other rank at an averaging event."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import astuple, dataclass, fields

from lightning_elche.control.requests import StopCause
from lightning_elche.exceptions import RankMismatch

__all__ = ["Report", "abort_of", "check_epochs", "common_event", "divergence_of", "weights_of"]

VERSION = 6


@dataclass(frozen=True, kw_only=True)
class Report:
    """One rank's side of an averaging event: the control word and the statistics of its window.

    A window is the time between two averaging events. All fields are numbers, so that the report
    travels as one float64 vector. Values marked (previous) describe the event before this one,
    because an event can only report what is over.

    Attributes:
        epoch: Index of the epoch that the rank works on.
        batches: Batches trained in the window.
        ahead_batches: Those of them that belong to the next epoch.
        optimizer_steps: Optimizer steps made in the window.
        samples: Samples in these batches.
        ahead_samples: Those of them that belong to the next epoch.
        weight: The rank's say in the average; 0 to adopt it without contributing.
        compute_ms: Time spent in these batches, data loading and hooks included; without those that
            were skipped.
        wait_ms: Time spent waiting for peers (previous).
        transfer_ms: Time spent exchanging parameters (previous).
        loss_sum: Sum of the loss over `loss_count` batches.
        loss_count: Batches that returned a loss.
        relative_delta: `||pre - post|| / ||post||` of the rank's parameters (previous); NaN if the
            rank did not contribute.
        readiness: Why the rank agreed to the event, a `Readiness`.
        agreed_after_ms: When it did, in milliseconds since the event before.
        optimizer_layout: Names the layout of the rank's optimizer states, 0 to keep them local.
        is_drained: The rank has no data left in this epoch.
        should_stop: The rank's Trainer was asked to stop.
        stop: Why the rank wants the run to end at once.
        needs_alignment: Something is due on the rank that needs all ranks at the same point.
        gate_abort: Exit code that the rank wants the run to end with, such as that of a training
            contract which it has broken; 0 for none.
        sits_out: The rank's parameters are spoiled, so that it weighs nothing.
        restorable_event: The latest event whose outcome the rank can restore, -1 for none.
        holds_anchor: The rank does not want windows to become longer.
        skipped: Batches of the window that were handed out and not learnt.
        redealt: Batches of the window that another rank was given before, and has skipped.
        input_ms: Part of `compute_ms` spent waiting for data.
        throttle_ms: Part of `compute_ms` spent asleep, since the rank shares its machine.
        pause: The rank wants all to wait at the end of the event.
        checkpoint: The rank wants a checkpoint to be saved after the event.
    """

    epoch: int = 0
    batches: int = 0
    ahead_batches: int = 0
    optimizer_steps: int = 0
    samples: int = 0
    ahead_samples: int = 0
    weight: float = 0.0
    compute_ms: float = 0.0
    wait_ms: float = 0.0
    transfer_ms: float = 0.0
    loss_sum: float = 0.0
    loss_count: int = 0
    relative_delta: float = math.nan
    readiness: int = 0
    agreed_after_ms: float = 0.0
    optimizer_layout: int = 0
    is_drained: bool = False
    should_stop: bool = False
    stop: StopCause = StopCause.NONE
    needs_alignment: bool = False
    gate_abort: int = 0
    sits_out: bool = False
    restorable_event: int = -1
    holds_anchor: bool = False
    skipped: int = 0
    redealt: int = 0
    input_ms: float = 0.0
    throttle_ms: float = 0.0
    pause: bool = False
    checkpoint: bool = False

    def to_vector(self) -> list[float]:
        """Return the report as numbers, the version of the format first."""
        return [float(VERSION), *(float(value) for value in astuple(self))]

    @classmethod
    def from_vector(cls, vector: Sequence[float]) -> Report:
        """Rebuild a report from `to_vector`.

        Raises:
            ValueError: If the vector was written by another version of the format.
        """
        names = [field.name for field in fields(cls)]
        if len(vector) != len(names) + 1 or vector[0] != VERSION:
            raise ValueError(
                f"`vector` must hold {len(names) + 1} numbers of report version {VERSION}, got "
                f"{len(vector)} of version {vector[0] if vector else 'none'}. Install the same "
                "release of lightning-elche on every rank."
            )
        default = cls()
        numbers = zip(names, vector[1:], strict=True)
        return cls(**{name: type(getattr(default, name))(number) for name, number in numbers})


def divergence_of(reports: Sequence[Report]) -> float:
    """Return the largest relative distance of a replica to the average, NaN if none is known."""
    deltas = [report.relative_delta for report in reports]
    return max((delta for delta in deltas if not math.isnan(delta)), default=math.nan)


def abort_of(reports: Sequence[Report]) -> tuple[int, int] | None:
    """Return code and rank of the abort that counts: the largest code, then the lowest rank."""
    aborts = ((report.gate_abort, -rank) for rank, report in enumerate(reports))
    code, negated_rank = max(aborts)
    return (code, -negated_rank) if code else None


def check_epochs(reports: Sequence[Report]) -> None:
    """Check that all ranks work on the same epoch.

    Raises:
        RankMismatch: If they do not.
    """
    epochs = [report.epoch for report in reports]
    if len(set(epochs)) > 1:
        raise RankMismatch("data", f"Ranks must work on the same epoch, got {epochs} by rank.")


def common_event(reports: Sequence[Report]) -> int:
    """Return the latest event whose outcome every rank can restore, -1 for none."""
    return min(report.restorable_event for report in reports)


def weights_of(reports: Sequence[Report]) -> list[float]:
    """Return what the parameters of each rank weigh, in rank order.

    Where nobody has learnt anything, and some ranks are spoiled, the others have what all held
    after the last event: it is as good, and what the spoiled ones need. A rank that asks for the
    end of the run may be in the midst of a step.
    """
    weights = [report.weight for report in reports]
    if any(weights) or not any(report.sits_out for report in reports):
        return weights
    return [float(not (report.sits_out or report.stop)) for report in reports]
