"""Find out which rank lost time, and why: one reads its data from slow storage."""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path

import torch
from classify_digits import DigitClassifier, digit_loaders
from lightning.pytorch import Trainer, seed_everything
from quiet_lightning import quiet_lightning
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from typing_extensions import override

from lightning_elche import CadenceMonitor, ElCheStrategy
from lightning_elche.cli.main import main as elche

SLOW_RANK = 1
READ_S = 0.001  # a sample


class SlowStorage(Dataset[tuple[Tensor, ...]]):
    """Samples that take a while to read on one rank.

    Args:
        samples: Where they come from.
    """

    def __init__(self, samples: Dataset[tuple[Tensor, ...]]) -> None:
        self.samples = samples

    @override
    def __getitem__(self, index: int) -> tuple[Tensor, ...]:
        if os.environ.get("LOCAL_RANK") == str(SLOW_RANK):
            time.sleep(READ_S)
        return self.samples[index]

    def __len__(self) -> int:
        return len(self.samples)  # type: ignore[arg-type]  # a TensorDataset


class WideClassifier(DigitClassifier):
    """Enough to compute that it is not reading that a step mostly consists of."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(64, 1024), nn.ReLU(), nn.Linear(1024, 1024), nn.ReLU(), nn.Linear(1024, 10)
        )


def main() -> None:
    """Train on two ranks and print what their time went into."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("runs/where_time_went"), help="folder")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    quiet_lightning()
    torch.set_num_threads(1)
    seed_everything(0, verbose=False)
    train, val = digit_loaders()
    trainer = Trainer(
        accelerator="cpu",
        devices=2,
        strategy=ElCheStrategy(),
        max_epochs=2,
        default_root_dir=options.out,
        callbacks=[CadenceMonitor(report=options.out / "report.html", progress_bar=False)],
        logger=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        enable_progress_bar=False,
    )
    slow = DataLoader(SlowStorage(train.dataset), batch_size=train.batch_size, shuffle=True)
    trainer.fit(WideClassifier(), slow, val)
    if trainer.is_global_zero:
        elche(["timeline", str(options.out)])
        print(f"\nThe same as a page: {options.out / 'report.html'}")


if __name__ == "__main__":
    main()
