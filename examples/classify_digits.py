"""Classify scikit-learn's handwritten digits on two ranks of unequal speed, in under a minute."""

from __future__ import annotations

import argparse

import torch
from lightning.pytorch import LightningModule, Trainer, seed_everything
from quiet_lightning import quiet_lightning
from sklearn.datasets import load_digits
from slow_rank import SlowDown
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset, random_split
from typing_extensions import override

from lightning_elche import ElCheStrategy

DigitLoader = DataLoader[tuple[Tensor, ...]]


def main() -> None:
    """Train, and print the accuracy and what each rank contributed."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    quiet_lightning()
    seed_everything(0, verbose=False)
    train, val = digit_loaders()

    strategy = ElCheStrategy()  # instead of "ddp"; nothing else changes
    trainer = Trainer(
        accelerator="cpu",
        devices=2,
        strategy=strategy,
        callbacks=[SlowDown(rank=1, factor=4.0)],
        max_epochs=20,
        logger=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        enable_progress_bar=False,
    )
    trainer.fit(DigitClassifier(), train, val)

    if trainer.is_global_zero and strategy.epoch_metrics:
        print(f"accuracy on unseen digits   {trainer.callback_metrics['accuracy']:.1%}")
        for rank, share in enumerate(strategy.epoch_metrics.share):
            print(f"share of rank {rank}             {share:.1%}")


class DigitClassifier(LightningModule):
    """A multilayer perceptron on images of 8 x 8 pixels."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 10))

    @override
    def training_step(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        images, digits = batch
        return F.cross_entropy(self.layers(images), digits)

    @override
    def validation_step(self, batch: tuple[Tensor, Tensor]) -> None:
        images, digits = batch
        is_right = self.layers(images).argmax(dim=1) == digits
        self.log("accuracy", is_right.float().mean(), sync_dist=True)

    @override
    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), lr=1e-3)


def digit_loaders() -> tuple[DigitLoader, DigitLoader]:
    """Return loaders of the digits to train on and of a fifth held out."""
    pixels, digits = load_digits(return_X_y=True)
    images = torch.tensor(pixels, dtype=torch.float32) / 16.0
    dataset = TensorDataset(images, torch.tensor(digits))
    train, val = random_split(dataset, [0.8, 0.2], torch.Generator().manual_seed(0))
    return DataLoader(train, batch_size=16, shuffle=True), DataLoader(val, batch_size=64)


if __name__ == "__main__":
    main()
