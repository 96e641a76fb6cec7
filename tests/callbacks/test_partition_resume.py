"""A resumed run has the bits of the run that was never stopped."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader, IterableDataset

from tests.callbacks.partitioned import (
    Noisy,
    Validating,
    ends_equal,
    fit_drawing,
    saver_of,
)
from tests.ranks import Numbered

# An epoch has six batches: the first, the middle, the last but one, the end, and the next epoch.
STEPS = (1, 3, 5, 6, 8)


class Stream(IterableDataset[Any]):
    """Samples without an index, with noise."""

    def __iter__(self) -> Iterator[Any]:
        return (Noisy(24)[index] for index in range(24))


def wholes(root: Path, **options: Any) -> Any:
    return fit_drawing(saver_of(root), **options)


def resumed(root: Path, step: int, **options: Any) -> Any:
    saver = saver_of(root / "other", every=None)
    return fit_drawing(saver, resume=root / f"step-{step:08d}", **options)


def test_run_is_resumed_at_any_batch(tmp_path: Path) -> None:
    """With dropout and shuffling, at each kind of place in an epoch."""
    whole = wholes(tmp_path)
    unequal = [step for step in STEPS if not ends_equal(whole, resumed(tmp_path, step))]
    assert unequal == []


def test_run_with_schedule_and_validation_is_resumed_at_any_batch(tmp_path: Path) -> None:
    """The schedule changes the rate at the end of an epoch; validation draws random numbers."""
    whole = wholes(tmp_path, model=Validating(has_schedule=True))
    unequal = [
        step
        for step in STEPS
        if not ends_equal(whole, resumed(tmp_path, step, model=Validating(has_schedule=True)))
    ]
    assert unequal == []


def test_run_that_accumulates_gradients_is_resumed(tmp_path: Path) -> None:
    """A step takes two batches."""
    whole = wholes(tmp_path, accumulate_grad_batches=2)
    places = [resumed(tmp_path, step, accumulate_grad_batches=2) for step in (2, 3, 4)]
    assert [ends_equal(whole, place) for place in places] == [True] * 3


def test_noise_added_when_samples_are_loaded_is_the_same_after_a_resume(tmp_path: Path) -> None:
    """It depends on the place of the batch alone."""

    def loader() -> DataLoader[Any]:
        return DataLoader(Noisy(24), batch_size=4, shuffle=True)

    whole = wholes(tmp_path, data=loader())
    assert ends_equal(whole, resumed(tmp_path, 4, data=loader()))


def test_stream_is_resumed_by_dropping_what_was_trained(tmp_path: Path) -> None:
    """Data without an index are read again up to the place."""

    def loader() -> DataLoader[Any]:
        return DataLoader(Stream(), batch_size=4)

    whole = wholes(tmp_path, data=loader())
    assert ends_equal(whole, resumed(tmp_path, 4, data=loader()))


def test_generator_of_the_user_draws_the_same_order_again(tmp_path: Path) -> None:
    """In the second epoch, too, which it would begin anew in a new process."""

    def loader() -> DataLoader[Any]:
        generator = torch.Generator().manual_seed(5)
        return DataLoader(Numbered(24), batch_size=4, shuffle=True, generator=generator)

    whole = wholes(tmp_path, data=loader())
    assert ends_equal(whole, resumed(tmp_path, 8, data=loader()))


@pytest.mark.slow
def test_order_of_a_loader_with_workers_is_the_same(tmp_path: Path) -> None:
    """The workers ask for their first indices before Lightning knows the epoch."""

    def loader() -> DataLoader[Any]:
        return DataLoader(Numbered(24), batch_size=4, shuffle=True, num_workers=1)

    whole = wholes(tmp_path, data=loader())
    assert ends_equal(whole, resumed(tmp_path, 8, data=loader()))


def test_captured_states_are_set_back(tmp_path: Path) -> None:
    """Without a validation that is as exact as a seed for each batch."""
    whole = fit_drawing(saver_of(tmp_path, rng="capture"))
    again = fit_drawing(
        saver_of(tmp_path / "other", every=None, rng="capture"), resume=tmp_path / "step-00000004"
    )
    assert ends_equal(whole, again)


def test_loader_stays_one_of_its_own_class(tmp_path: Path) -> None:
    """What the user has set is there, and the loader that was passed is as it was."""
    loader = DataLoader(Numbered(24), batch_size=4, shuffle=True)
    trainer, _ = wholes(tmp_path, data=loader)
    used = trainer.train_dataloader
    assert isinstance(used, DataLoader)
    assert (used.batch_size, len(used), type(loader)) == (4, 6, DataLoader)


def test_root_stands_for_its_newest_checkpoint_that_is_right(tmp_path: Path) -> None:
    """One that is damaged is left out, and named."""
    wholes(tmp_path)
    for step in range(9, 19):
        shutil.rmtree(tmp_path / f"step-{step:08d}")
    image = tmp_path / "step-00000008" / "model.safetensors"
    image.write_bytes(image.read_bytes()[:-1] + b"\x00")
    saver = saver_of(tmp_path, every=None)
    fit_drawing(saver, resume=tmp_path)
    report = saver.last_restore
    assert report is not None
    assert (report.step, report.replay) == (7, "exact")
    assert [name for name, _ in report.rejected] == ["step-00000008"]
