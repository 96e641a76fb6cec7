"""What the strategy costs where it cannot gain anything: on one device, and per claimed chunk."""

from __future__ import annotations

import argparse
import logging
import statistics
import time
import warnings
from collections.abc import Sequence
from datetime import timedelta

import torch
from lightning.pytorch import Callback, LightningModule, Trainer, seed_everything
from torch.distributed import TCPStore
from torch.utils.data import DataLoader, TensorDataset
from typing_extensions import override

import lightning_elche  # noqa: F401  # registers the strategy
from lightning_elche.distributed.control_store import ControlStore
from lightning_elche.distributed.store_pool import StorePool

CLAIMS = 2000


class Tiny(LightningModule):
    """A model whose step costs next to nothing, so that what Lightning and we add stands out."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(1, 1)

    @override
    def training_step(self, batch: Sequence[torch.Tensor]) -> torch.Tensor:
        return self.layer(batch[0]).sum()

    @override
    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.01)


class EpochTime(Callback):
    """Notes how long each epoch took."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    @override
    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._began = time.perf_counter()

    @override
    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.seconds.append(time.perf_counter() - self._began)


def step_us(strategy: str, *, steps: int) -> float:
    """Return how long a step on one device takes in microseconds, the first epoch aside."""
    seed_everything(0, verbose=False)
    clock = EpochTime()
    trainer = Trainer(
        accelerator="cpu",
        devices=1,
        strategy=strategy,
        max_epochs=3,
        callbacks=[clock],
        logger=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        enable_progress_bar=False,
    )
    trainer.fit(Tiny(), DataLoader(TensorDataset(torch.ones(steps, 1))))
    return 1e6 * statistics.median(clock.seconds[1:]) / steps


def claim_us() -> float:
    """Return how long one claim from a pool on a TCP store takes in microseconds."""
    store = TCPStore("127.0.0.1", 0, is_master=True, timeout=timedelta(seconds=30))
    pool = StorePool(ControlStore(store, "run"), "0", total=10 * CLAIMS, world_size=2)
    took = []
    for _ in range(CLAIMS):
        began = time.perf_counter()
        pool.claim(1)
        took.append(time.perf_counter() - began)
    return 1e6 * statistics.median(took)


def quiet_options(description: str | None) -> argparse.Namespace:
    """Return the options of the command line, and keep Lightning and PyTorch out of the way."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--repeats", type=int, default=5, help="how often to measure; medians")
    parser.add_argument("--steps", type=int, default=1000, help="steps of an epoch")
    options = parser.parse_args()
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.simplefilter("ignore")  # advice of Lightning about loggers and workers
    torch.set_num_threads(1)
    return options


def main() -> None:
    """Measure in turns and print medians."""
    options = quiet_options(__doc__)
    pairs = [
        (step_us("auto", steps=options.steps), step_us("elche", steps=options.steps))
        for _ in range(options.repeats)
    ]
    plain = statistics.median(pair[0] for pair in pairs)
    added = statistics.median(ours - stock for stock, ours in pairs)
    print(f"step on one device: {plain:.0f} us in plain Lightning, ours {added:+.1f} us")
    print(f"claim of a chunk from a local TCP store: {claim_us():.0f} us")


if __name__ == "__main__":
    main()
