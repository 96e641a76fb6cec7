"""What the benchmark trains, on synthetic images: a CNN, or an MLP of larger exchanges."""

from __future__ import annotations

from collections.abc import Callable

import torch
from lightning.pytorch import LightningModule
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset
from typing_extensions import override

BATCH_SIZE = 32
DISTINCT_IMAGES = 512  # speed does not depend on their number


def cnn() -> nn.Sequential:
    """Return a CNN of 0.29 M parameters for images of 32 x 32 pixels: about 17 ms a step."""
    return nn.Sequential(
        *(nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(32, 64, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Flatten(), nn.Linear(1024, 256), nn.ReLU(), nn.Linear(256, 10)),
    )


def mlp() -> nn.Sequential:
    """Return an MLP of 0.94 M parameters: three times as much to exchange, a sixth of the time."""
    return nn.Sequential(
        *(nn.Flatten(), nn.Linear(3072, 288), nn.ReLU()),
        *(nn.Linear(288, 192), nn.ReLU(), nn.Linear(192, 10)),
    )


WORKLOADS: dict[str, Callable[[], nn.Sequential]] = {"cnn": cnn, "mlp": mlp}


def bytes_of(module: nn.Module) -> int:
    """Return the size of the parameters."""
    return sum(parameter.nbytes for parameter in module.parameters())


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
    """One of the workloads for a Trainer.

    Args:
        workload: Its name in `WORKLOADS`.
    """

    def __init__(self, workload: str) -> None:
        super().__init__()
        self.network = WORKLOADS[workload]()

    @override
    def training_step(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        return loss_of(self.network, batch)

    @override
    def configure_optimizers(self) -> torch.optim.Optimizer:
        return optimizer_for(self)
