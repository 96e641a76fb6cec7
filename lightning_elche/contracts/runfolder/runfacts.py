"""What a run record means for its judges."""

from __future__ import annotations

from lightning_elche.contracts.records import RunRecord
from lightning_elche.contracts.runfolder.runrecord import hyperparameters_of
from lightning_elche.contracts.session import RunEnd, RunFacts

__all__ = ["run_end", "run_facts"]


def run_facts(
    run: RunRecord | None,
    *,
    regime: str | None = None,
    vocab_size: int | None = None,
    device: str | None = None,
) -> RunFacts:
    """Return what a run tells of itself, or what its reader knows if it has no record.

    Raises:
        ValueError: If both tell something.
    """
    if run is None:
        return RunFacts(mode=regime, vocab_size=vocab_size, device=device)
    told = {"regime": regime, "vocab_size": vocab_size, "device": device}
    named = [name for name, value in told.items() if value is not None]
    if named:
        raise ValueError(
            f"`{named[0]}` must not be given for a run that has a run.json, got "
            f"{told[named[0]]!r}. Leave it out: the run itself tells it."
        )
    return RunFacts(
        mode=run.mode,
        vocab_size=run.vocab_size,
        hyperparameters=hyperparameters_of(run),
        explicit=frozenset(run.explicit),
        device=run.device,
        gpu_util_source=run.gpu_util_source,
        provenance=run.provenance,
        planned_batches=run.planned_batches,
        world_size=run.world_size,
    )


def run_end(run: RunRecord | None, *, num_epochs: int) -> RunEnd:
    """Return how a run ended; without its record, `num_epochs` are the completed ones."""
    if run is None:
        return RunEnd(status=None, stop_reason=None, epochs_completed=num_epochs)
    return RunEnd(
        status=run.status, stop_reason=run.stop_reason, epochs_completed=run.epochs_completed
    )
