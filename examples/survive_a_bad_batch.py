"""Undo two bad batches in the midst of training, as if they had never been there."""

from __future__ import annotations

import argparse
import json
import logging

import torch
from classify_digits import DigitClassifier, digit_loaders
from lightning.pytorch import Callback, Trainer, seed_everything
from quiet_lightning import quiet_lightning
from torch import Tensor
from torch.utils.data import DataLoader

from lightning_elche import Rollback

Batch = tuple[Tensor, ...]

NO_NUMBERS, SPIKE = 30, 120  # the bad batches


def main() -> None:
    """Train three times, and compare."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    quiet_lightning()
    torch.set_num_threads(1)  # the model is small
    train, val = digit_loaders()
    seed_everything(0, verbose=False)
    batches: list[Batch] = [*train, *train]
    spoiled = [spoil(index, batch) for index, batch in enumerate(batches)]
    clean = [batch for index, batch in enumerate(batches) if index not in (NO_NUMBERS, SPIKE)]
    print(f"{len(batches)} batches of digits; two of them are bad.")

    listen_to_events()
    rollback = Rollback()
    survivor = fit(spoiled, val, rollback)
    print(f"{rollback.effective_step} steps count, {rollback.incidents} were undone.\n")
    victim, reference = fit(spoiled, val), fit(clean, val)

    print("Accuracy on unseen digits")
    print(f"  with the bad batches, without Rollback    {accuracy(victim):6.1%}")
    print(f"  with the bad batches and Rollback         {accuracy(survivor):6.1%}")
    print(f"  without the bad batches                   {accuracy(reference):6.1%}")
    print(f"The last two are equal to the last bit: {is_equal(survivor, reference)}")


def spoil(index: int, batch: Batch) -> Batch:
    """Return the batch, which is bad at two places."""
    images, digits = batch
    if index == NO_NUMBERS:
        images = torch.full_like(images, torch.nan)
    elif index == SPIKE:
        images = 1000.0 * images
    return images, digits


def fit(batches: list[Batch], val: DataLoader[Batch], *callbacks: Callback) -> Trainer:
    """Train one epoch on batches as they are."""
    seed_everything(1, verbose=False)
    trainer = Trainer(
        accelerator="cpu",
        devices=1,
        max_epochs=1,
        callbacks=list(callbacks),
        logger=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        enable_progress_bar=False,
    )
    trainer.fit(DigitClassifier(), DataLoader(batches, batch_size=None), val)
    return trainer


def accuracy(trainer: Trainer) -> float:
    """Return the part of the held-out digits that are recognised."""
    return float(trainer.callback_metrics["accuracy"])


def is_equal(first: Trainer, second: Trainer) -> bool:
    """Return whether two runs have ended with the same parameters."""
    pairs = zip(
        first.lightning_module.parameters(), second.lightning_module.parameters(), strict=True
    )
    return all(torch.equal(ours, other) for ours, other in pairs)


class Narrator(logging.Handler):
    """Prints what is undone; the events of a run are lines of JSON in a log."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print one event."""
        event = json.loads(record.getMessage())
        if event["event"] == "rollback":
            print(f"  {event['cause']}: back at step {event['step']}")


def listen_to_events() -> None:
    """Print the events of the run as they come."""
    events = logging.getLogger("lightning_elche.events")
    events.setLevel(logging.INFO)
    events.addHandler(Narrator())


if __name__ == "__main__":
    main()
