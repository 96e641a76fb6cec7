"""What GateTrain adds to a step, beside an empty callback and a logger that writes every step."""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer, seed_everything
from lightning.pytorch.loggers import CSVLogger
from overhead import EpochTime, quiet_options
from torch.utils.data import DataLoader, TensorDataset
from typing_extensions import override

from lightning_elche import GateTrain

NEVER_CLIPS = 1e9


class Net(LightningModule):
    """Two layers, so that there are several gradients and the rest of a step is small."""

    def __init__(self, *, logs: bool = False) -> None:
        super().__init__()
        self.layers = torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.Linear(8, 1))
        self.logs = logs

    @override
    def training_step(self, batch: list[torch.Tensor]) -> torch.Tensor:
        loss = self.layers(batch[0]).square().mean() + 1.0
        if self.logs:
            self.log("train_loss", loss)
        return loss

    @override
    def validation_step(self, batch: list[torch.Tensor]) -> None:
        self.log("val_loss", self.layers(batch[0]).square().mean())

    @override
    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=1e-5)


class Empty(Callback):
    """Does nothing; Lightning calls all of its hooks."""


class TakesNorm(Callback):
    """Reads the norm of the gradients at every step, as whoever wants to log it does."""

    @override
    def on_before_optimizer_step(
        self, trainer: Trainer, pl_module: LightningModule, optimizer: torch.optim.Optimizer
    ) -> None:
        gradients = [p.grad for p in pl_module.parameters() if p.grad is not None]
        self.norm = torch.nn.utils.get_total_norm(gradients).item()


def step_us(steps: int, *, logs: bool = False, **options: Any) -> float:  # noqa: ANN401
    """Return how long a step takes in microseconds, the first epoch aside."""
    seed_everything(0, verbose=False)
    clock = EpochTime()
    trainer = Trainer(
        accelerator="cpu",
        devices=1,
        max_epochs=3,
        enable_checkpointing=False,
        enable_model_summary=False,
        enable_progress_bar=False,
        num_sanity_val_steps=0,
        **{"logger": False, **options, "callbacks": [clock, *options.get("callbacks", ())]},
    )
    data = TensorDataset(torch.randn(steps, 8))
    trainer.fit(Net(logs=logs), DataLoader(data), DataLoader(TensorDataset(torch.ones(1, 8))))
    return 1e6 * statistics.median(clock.seconds[1:]) / steps


def variants(folder: Path, steps: int) -> dict[str, Callable[[int], float]]:
    """Return what is measured, by name; each takes the number of the repetition."""
    clips = {"gradient_clip_val": NEVER_CLIPS}

    def gate(name: str, repeat: int, **options: Any) -> float:  # noqa: ANN401
        return step_us(steps, callbacks=[GateTrain(run_dir=folder / f"{name}{repeat}", **options)])

    return {
        "no callback": lambda _: step_us(steps),
        "empty callback": lambda _: step_us(steps, callbacks=[Empty()]),
        "callback that takes the norm": lambda _: step_us(steps, callbacks=[TakesNorm()]),
        "GateTrain": lambda repeat: gate("plain", repeat),
        "Lightning's clipping, empty callback": lambda _: step_us(
            steps, callbacks=[Empty()], **clips
        ),
        "GateTrain(clip_norm=...)": lambda repeat: gate("clip", repeat, clip_norm=NEVER_CLIPS),
        "CSVLogger, every step": lambda repeat: step_us(
            steps, logs=True, logger=CSVLogger(folder, version=repeat), log_every_n_steps=1
        ),
    }


def main() -> None:
    """Measure in turns and print medians."""
    options = quiet_options(__doc__)
    with tempfile.TemporaryDirectory() as folder:
        measured = variants(Path(folder), options.steps)
        times: dict[str, list[float]] = {name: [] for name in measured}
        for repeat in range(options.repeats):
            for name, measure in measured.items():
                times[name].append(measure(repeat))
    base = statistics.median(times["no callback"])
    print(f"{'':38}{'us a step':>10}{'added':>9}{'ratio':>7}")
    for name, taken in times.items():
        added = [own - plain for own, plain in zip(taken, times["no callback"], strict=True)]
        median = statistics.median(taken)
        print(f"{name:38}{median:10.0f}{statistics.median(added):+9.0f}{median / base:7.2f}")


if __name__ == "__main__":
    main()
