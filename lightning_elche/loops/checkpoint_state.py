"""What a checkpoint holds beyond Lightning's own, and what Lightning's must say instead."""

from __future__ import annotations

from typing import Any, TypedDict

from lightning_elche.data.epoch_progress import EpochProgress, indices_of
from lightning_elche.distributed.rounds_parts import RoundsState

__all__ = ["RunState", "resume_on_one_device", "with_agreed_progress"]

BATCHES = "epoch_loop.batch_progress"
EPOCHS = "epoch_progress"
VALIDATION = "epoch_loop.val_loop.batch_progress"
AUTOMATIC = "epoch_loop.automatic_optimization.optim_progress"
MANUAL = "epoch_loop.manual_optimization.optim_step_progress"


class RunState(TypedDict):
    """The state of a run.

    Attributes:
        rounds: The agreed state, equal on every rank.
        data: What was trained of the epochs under way; `None` where a rank saved alone, or where
            each rank has a stream of its own.
    """

    rounds: RoundsState
    data: EpochProgress | None


def with_agreed_progress(
    state: dict[str, Any],
    *,
    global_step: int,
    epoch_batches: int,
    world_size: int,
    is_epoch_trained: bool = True,
) -> dict[str, Any]:
    """Return the state of the fit loop with the counts that DDP would have, had it done the work.

    Lightning counts the batches and steps of the rank that saves. Another strategy would take them
    for those of every rank.

    Args:
        state: What the stock loop saves.
        global_step: Optimizer steps of all ranks.
        epoch_batches: Batches that all ranks have trained in this epoch.
        world_size: Number of ranks. A complete epoch is one for any number of ranks.
        is_epoch_trained: Whether nothing is left of this epoch's data. Else the epoch goes on after
            a resume, though the rank that saves may have finished its part.
    """
    is_last_batch = state[BATCHES]["is_last_batch"] and is_epoch_trained
    progress = {**state[BATCHES], "is_last_batch": is_last_batch}
    trained = epoch_batches // (1 if is_last_batch else world_size)
    # After the last batch without a validation, stock loops save before the batch is complete, and
    # would train one batch more if it were.
    open_batches = int(is_last_batch and not state[VALIDATION]["is_last_batch"])
    for span in ("total", "current"):
        count = trained if span == "current" else progress[span]["processed"]
        counts = dict.fromkeys(progress[span], count)
        progress[span] = {**counts, "completed": count - open_batches}
    epochs = state[EPOCHS]
    if not is_epoch_trained:
        epochs = {
            span: {**counts, "processed": counts["completed"]} for span, counts in epochs.items()
        }
    optimizer = state[AUTOMATIC]["optimizer"]
    optimizer = {**optimizer, "step": _at(optimizer["step"], global_step)}
    return {
        **state,
        EPOCHS: epochs,
        BATCHES: progress,
        AUTOMATIC: {**state[AUTOMATIC], "optimizer": optimizer},
        MANUAL: _at(state[MANUAL], global_step),
    }


def resume_on_one_device(checkpoint: dict[str, Any]) -> EpochProgress | None:
    """Let the stock loop of one device count from what all ranks have trained.

    Args:
        checkpoint: Changed in place.

    Returns:
        What was trained of the epoch that the checkpoint was saved in; `None` if it had ended, or
        if no run on several ranks has saved it.
    """
    state = checkpoint.get("loops", {}).get("fit_loop", {})
    run: RunState | None = state.get("epoch_loop.state_dict", {}).get("elche")
    if run is None or run["data"] is None or state[BATCHES]["is_last_batch"]:
        return None
    trained = len(indices_of(run["data"]["trained"]))
    checkpoint["loops"]["fit_loop"] = with_agreed_progress(
        state, global_step=checkpoint["global_step"], epoch_batches=trained, world_size=1
    )
    return run["data"]


def _at(progress: dict[str, dict[str, int]], count: int) -> dict[str, dict[str, int]]:
    return {**progress, "total": dict.fromkeys(progress["total"], count)}
