"""What CadenceMonitor adds to a step, with and without event logs, beside an empty callback.

It counts the time of the processor, threads included, which other work on the machine disturbs
less than the time that a step takes.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from gate_overhead import Empty, Net
from lightning.pytorch import Callback, Trainer, seed_everything
from overhead import quiet_options
from torch.utils.data import DataLoader, TensorDataset
from typing_extensions import override

from lightning_elche import CadenceMonitor, ElCheStrategy

if TYPE_CHECKING:
    from lightning.pytorch import LightningModule


class EpochCpu(Callback):
    """Notes how much processor time each epoch took."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    @override
    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._began = time.process_time()

    @override
    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.seconds.append(time.process_time() - self._began)


def step_us(callback: Callback, steps: int, **options: Any) -> float:  # noqa: ANN401
    """Return the processor time of a step in microseconds, the first epoch aside."""
    seed_everything(0, verbose=False)
    clock = EpochCpu()
    trainer = Trainer(
        accelerator="cpu",
        devices=1,
        max_epochs=3,
        logger=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        enable_progress_bar=False,
        num_sanity_val_steps=0,
        limit_val_batches=0,
        callbacks=[clock, callback],
        **options,
    )
    trainer.fit(Net(), DataLoader(TensorDataset(torch.randn(steps, 8))))
    return 1e6 * statistics.median(clock.seconds[1:]) / steps


def variants(folder: Path, steps: int) -> dict[str, Callable[[], float]]:
    """Return what is measured, by name."""

    def elche(callback: Callback) -> float:
        return step_us(callback, steps, default_root_dir=folder, strategy=ElCheStrategy())

    def other(callback: Callback) -> float:
        return step_us(callback, steps, default_root_dir=folder)

    return {
        "ElCheStrategy, empty callback": lambda: elche(Empty()),
        "ElCheStrategy, CadenceMonitor(events=False)": lambda: elche(CadenceMonitor(events=False)),
        "ElCheStrategy, CadenceMonitor()": lambda: elche(CadenceMonitor()),
        "another strategy, empty callback": lambda: other(Empty()),
        "another strategy, CadenceMonitor()": lambda: other(CadenceMonitor()),
    }


def main() -> None:
    """Measure in turns and print medians; what is added is to the empty callback."""
    options = quiet_options(__doc__)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        measured = variants(Path(folder), options.steps)
        times: dict[str, list[float]] = {name: [] for name in measured}
        for _ in range(options.repeats):
            for name, measure in measured.items():
                times[name].append(measure())
    print(f"{'':46}{'us a step':>10}{'added':>9}")
    for name, taken in times.items():
        base = times[f"{name.split(',')[0]}, empty callback"]
        added = [own - empty for own, empty in zip(taken, base, strict=True)]
        print(f"{name:46}{statistics.median(taken):10.1f}{statistics.median(added):+9.1f}")


if __name__ == "__main__":
    main()
