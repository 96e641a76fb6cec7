"""What Lightning's own counts say in our checkpoints."""

from __future__ import annotations

from typing import Any

import pytest
from lightning.pytorch import Trainer

from lightning_elche.loops.checkpoint_state import (
    AUTOMATIC,
    BATCHES,
    EPOCHS,
    MANUAL,
    VALIDATION,
    resume_on_one_device,
    with_agreed_progress,
)


def state_of(*, is_last_batch: bool = False) -> dict[str, Any]:
    """Return the state of a stock fit loop, as of some batch."""
    options: dict[str, Any] = {"accelerator": "cpu", "devices": 1, "logger": False}
    state = Trainer(enable_checkpointing=False, **options).fit_loop.state_dict()
    state[BATCHES]["is_last_batch"] = is_last_batch
    return state


def agreed(state: dict[str, Any], **options: bool) -> dict[str, Any]:
    return with_agreed_progress(state, global_step=70, epoch_batches=41, world_size=2, **options)


def test_steps_are_those_of_all_ranks() -> None:
    """For automatic and manual optimization, whichever the module uses."""
    state = agreed(state_of())
    assert state[AUTOMATIC]["optimizer"]["step"]["total"] == {"ready": 70, "completed": 70}
    assert state[MANUAL]["total"] == {"ready": 70, "completed": 70}


def test_batches_are_an_even_share() -> None:
    """As if every rank had trained as much, so that DDP goes on in the right place."""
    current = agreed(state_of())[BATCHES]["current"]
    assert set(current.values()) == {20}


@pytest.mark.parametrize(("is_validated", "completed"), [(False, 40), (True, 41)])
def test_complete_epoch_is_one_for_any_number_of_ranks(is_validated: bool, completed: int) -> None:
    """All batches count; without a validation the last one is about to be completed."""
    state = state_of(is_last_batch=True)
    state[VALIDATION]["is_last_batch"] = is_validated
    current = agreed(state)[BATCHES]["current"]
    assert (current["ready"], current["processed"], current["completed"]) == (41, 41, completed)


def test_epoch_is_not_complete_while_other_ranks_have_data() -> None:
    """Though the rank that saves has none."""
    progress = agreed(state_of(is_last_batch=True), is_epoch_trained=False)[BATCHES]
    assert (progress["is_last_batch"], progress["current"]["completed"]) == (False, 20)


def test_epoch_with_data_left_is_not_counted() -> None:
    """Though Lightning has ended it, since `max_steps` was reached."""
    state = state_of(is_last_batch=True)
    state[EPOCHS]["current"].update(ready=1, started=1, processed=1)
    assert agreed(state, is_epoch_trained=False)[EPOCHS]["current"]["processed"] == 0
    assert agreed(state)[EPOCHS]["current"]["processed"] == 1


def test_given_state_is_left_alone() -> None:
    """It may be the live progress of the loop."""
    state = state_of()
    agreed(state)
    assert state == state_of()


def test_one_device_counts_from_what_all_have_trained() -> None:
    """The stock loop then ends the epoch at its last batch."""
    data = {"epoch": 0, "total": 90, "digest": "", "trained": [[0, 40], [50, 51]], "ahead": []}
    state = state_of()
    state["epoch_loop.state_dict"]["elche"] = {"rounds": {}, "data": data}
    checkpoint = {"global_step": 70, "loops": {"fit_loop": state}}
    assert resume_on_one_device(checkpoint) == data
    assert checkpoint["loops"]["fit_loop"][BATCHES]["current"]["ready"] == 41


@pytest.mark.parametrize("checkpoint", [{}, {"loops": {}}, {"loops": {"fit_loop": state_of()}}])
def test_checkpoint_of_plain_lightning_stays_as_it_is(checkpoint: dict[str, Any]) -> None:
    """Nothing in it says what was trained."""
    assert resume_on_one_device(checkpoint) is None
