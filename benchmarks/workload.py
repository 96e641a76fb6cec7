"""What the benchmark trains: a small CNN, about 17 ms a step on one core, on synthetic images."""

from __future__ import annotations

import torch
from lightning.pytorch import LightningModule
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset
from typing_extensions import override

BATCH_SIZE = 32
DISTINCT_IMAGES = 512  # speed does not depend on their number


def cnn() -> nn.Sequential:
    """Return a CNN of 0.29 M parameters for images of 32 x 32 pixels."""
    return nn.Sequential(
        *(nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(32, 64, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Flatten(), nn.Linear(1024, 256), nn.ReLU(), nn.Linear(256, 10)),
    )


def optimizer_for(module: nn.Module) -> torch.optim.Optimizer:
    """Return the optimizer that every row of the table uses."""
    return torch.optim.SGD(module.parameters(), lr=0.01, momentum=0.9)


def loss_of(module: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    """Return the loss that every row of the table minimises."""
    images, labels = batch
    return F.cross_entropy(module(images), labels)


def loader(num_batches: int) -> DataLoader[tuple[Tensor, Tensor]]:
    """Return a loader of `num_batches` full batches."""
    return DataLoader(SyntheticImages(num_batches * BATCH_SIZE), BATCH_SIZE, shuffle=True)


class SyntheticImages(Dataset[tuple[Tensor, Tensor]]):
    """The same few random images over and over.

    Args:
        length: Number of images.
    """

    def __init__(self, length: int) -> None:
        source = torch.Generator().manual_seed(0)
        self.length = length
        self.images = torch.randn(DISTINCT_IMAGES, 3, 32, 32, generator=source)
        self.labels = torch.randint(10, (DISTINCT_IMAGES,), generator=source)

    def __len__(self) -> int:
        return self.length

    @override
    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return self.images[index % DISTINCT_IMAGES], self.labels[index % DISTINCT_IMAGES]


class ImageClassifier(LightningModule):
    """The CNN for a Trainer."""

    def __init__(self) -> None:
        super().__init__()
        self.network = cnn()

    @override
    def training_step(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        return loss_of(self.network, batch)

    @override
    def configure_optimizers(self) -> torch.optim.Optimizer:
        return optimizer_for(self)
