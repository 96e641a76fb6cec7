"""Read two handwritten digits that lie on top of each other: the sum of both losses, or PCGrad."""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer, seed_everything
from lightning.pytorch.loggers.logger import Logger
from quiet_lightning import quiet_lightning
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset
from typing_extensions import override

from lightning_elche import PCGrad

TASKS = ("upper", "lower")
SIZE, SHIFT = 8, 2  # of a digit in pixels, and by how much the lower one is moved
TRAIN_PAIRS, VAL_PAIRS = 4000, 1000
LOSSES = {"sum": "sum of both losses", "pcgrad": "PCGrad"}


@dataclass
class Run:
    """One training.

    Attributes:
        accuracy: Of each task, after each epoch.
        conflicts: Step, and the part of the steps since the last one that had a conflict.
    """

    accuracy: list[tuple[float, ...]] = field(default_factory=list)
    conflicts: list[tuple[int, float]] = field(default_factory=list)

    @property
    def final(self) -> tuple[float, ...]:
        """The accuracy of each task at the end."""
        return self.accuracy[-1]


def main() -> None:
    """Train both ways for each seed, and compare."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3, help="trainings of each kind")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--out", type=Path, default=Path("runs/multitask_digits"))
    options = parser.parse_args()
    quiet_lightning()
    torch.set_num_threads(1)  # the matrices are small
    loaders = pair_loaders()
    runs = {
        name: [
            train(name == "pcgrad", seed, options.epochs, loaders) for seed in range(options.seeds)
        ]
        for name in LOSSES
    }
    print(table(runs))
    print(verdict(runs))
    options.out.mkdir(parents=True, exist_ok=True)
    draw(runs, options.out / "multitask.png")
    print(f"picture: {options.out / 'multitask.png'}")


def train(
    has_pcgrad: bool, seed: int, epochs: int, loaders: tuple[DataLoader[Any], DataLoader[Any]]
) -> Run:
    """Return one training; only the callback and what the step returns depend on `has_pcgrad`."""
    seed_everything(seed, verbose=False)
    run = Run()
    trainer = Trainer(
        accelerator="cpu",
        devices=1,
        callbacks=[PCGrad(seed=seed)] if has_pcgrad else [],
        logger=Notes(run),
        log_every_n_steps=20,
        max_epochs=epochs,
        enable_checkpointing=False,
        enable_model_summary=False,
        enable_progress_bar=False,
        num_sanity_val_steps=0,
    )
    trainer.fit(PairReader(has_pcgrad=has_pcgrad), *loaders)
    return run


class PairReader(LightningModule):
    """A common trunk, and a head for each of the two digits."""

    def __init__(self, *, has_pcgrad: bool) -> None:
        super().__init__()
        self.has_pcgrad = has_pcgrad
        pixels = (SIZE + SHIFT) ** 2
        self.trunk = nn.Sequential(nn.Linear(pixels, 128), nn.ReLU(), nn.Linear(128, 64), nn.ReLU())
        self.heads = nn.ModuleDict({task: nn.Linear(64, 10) for task in TASKS})

    @override
    def training_step(self, batch: Sequence[Tensor]) -> Tensor | dict[str, Tensor]:
        features = self.trunk(batch[0])
        losses = {
            task: F.cross_entropy(head(features), batch[1][:, place])
            for place, (task, head) in enumerate(self.heads.items())
        }
        return losses if self.has_pcgrad else torch.stack(list(losses.values())).sum()

    @override
    def validation_step(self, batch: Sequence[Tensor]) -> None:
        features = self.trunk(batch[0])
        for place, (task, head) in enumerate(self.heads.items()):
            is_right = head(features).argmax(dim=1) == batch[1][:, place]
            self.log(f"accuracy/{task}", is_right.float().mean())

    @override
    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), lr=1e-3)


class Notes(Logger):
    """Keeps in a `Run` what is logged."""

    def __init__(self, run: Run) -> None:
        super().__init__()
        self.run = run

    @property
    @override
    def name(self) -> str:
        return "notes"

    @property
    @override
    def version(self) -> int:
        return 0

    @override
    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None: ...

    @override
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        if "pcgrad/conflict_fraction" in metrics:
            self.run.conflicts.append((step or 0, metrics["pcgrad/conflict_fraction"]))
        if f"accuracy/{TASKS[0]}" in metrics:
            self.run.accuracy.append(tuple(metrics[f"accuracy/{task}"] for task in TASKS))


def pair_loaders() -> tuple[DataLoader[Any], DataLoader[Any]]:
    """Return pairs to train on, and pairs of digits that are in none of those."""
    pixels, digits = load_digits(return_X_y=True)
    images = torch.tensor(pixels, dtype=torch.float32).view(-1, SIZE, SIZE) / 16.0
    labels = torch.tensor(digits)
    generator = torch.Generator().manual_seed(0)
    order = torch.randperm(len(labels), generator=generator)
    cut = len(order) * 4 // 5
    train = pairs(images, labels, order[:cut], TRAIN_PAIRS, generator)
    val = pairs(images, labels, order[cut:], VAL_PAIRS, generator)
    return DataLoader(train, batch_size=64, shuffle=True), DataLoader(val, batch_size=500)


def pairs(
    images: Tensor, labels: Tensor, among: Tensor, count: int, generator: torch.Generator
) -> TensorDataset:
    """Return random pairs of digits in one image, the second one `SHIFT` pixels further down."""
    chosen = among[torch.randint(len(among), (count, 2), generator=generator)]
    canvas = torch.zeros(count, SIZE + SHIFT, SIZE + SHIFT)
    canvas[:, :SIZE, :SIZE] = images[chosen[:, 0]]
    lower = canvas[:, SHIFT:, SHIFT:]
    torch.maximum(lower, images[chosen[:, 1]], out=lower)
    return TensorDataset(canvas.flatten(1), labels[chosen])


def table(runs: Mapping[str, Sequence[Run]]) -> str:
    """Return the accuracies on unseen digits: the median over the seeds, and the range."""
    lines = [f"{'accuracy on unseen digits':28}" + "".join(f"{task:>24}" for task in TASKS)]
    for name, title in LOSSES.items():
        cells = []
        for place in range(len(TASKS)):
            values = [run.final[place] for run in runs[name]]
            middle = statistics.median(values)
            cells.append(f"{middle:10.1%} ({min(values):.1%}-{max(values):.1%})")
        lines.append(f"{title:28}" + "".join(f"{cell:>24}" for cell in cells))
    return "\n".join(lines)


def verdict(runs: Mapping[str, Sequence[Run]]) -> str:
    """Return what PCGrad did, beside how much the seeds differ."""
    means = {name: [statistics.mean(run.final) for run in runs[name]] for name in LOSSES}
    gains = [a - b for a, b in zip(means["pcgrad"], means["sum"], strict=True)]
    spread = max(max(values) - min(values) for values in means.values())
    fractions = [fraction for run in runs["pcgrad"] for _, fraction in run.conflicts]
    gain = statistics.median(gains)
    size = "no more than" if abs(gain) <= spread else "more than"
    return (
        f"The two gradients were in conflict at {statistics.mean(fractions):.0%} of the steps. "
        f"PCGrad changed the mean accuracy by {100 * gain:+.1f} points (median over the seeds, "
        f"{100 * min(gains):+.1f} to {100 * max(gains):+.1f}), {size} the "
        f"{100 * spread:.1f} points by which seeds differ."
    )


def draw(runs: Mapping[str, Sequence[Run]], path: Path) -> None:
    """Draw conflicts over the steps and accuracies over the epochs, one line for each seed."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4.2), layout="constrained")
    conflicts, accuracy = figure.subplots(1, 2)
    series = [run.conflicts for run in runs["pcgrad"]]
    steps = [step for step, _ in series[0]]
    for points in series:
        conflicts.plot(steps, [part for _, part in points], color="C1", linewidth=0.8, alpha=0.4)
    means = [statistics.mean(part for _, part in column) for column in zip(*series, strict=True)]
    conflicts.plot(steps, means, color="C1", linewidth=2.0, label="mean of the seeds")
    conflicts.legend(frameon=False, loc="lower right")
    conflicts.set(xlabel="optimizer step", ylabel="part of the steps in conflict", ylim=(0, 1))
    conflicts.set_title("Steps at which the two gradients are in conflict")
    for number, (name, title) in enumerate(LOSSES.items()):
        for seed, run in enumerate(runs[name]):
            means = [statistics.mean(epoch) for epoch in run.accuracy]
            label = title if seed == 0 else None
            epochs = range(1, len(means) + 1)
            accuracy.plot(epochs, means, color=f"C{number}", linewidth=1.2, alpha=0.8, label=label)
    accuracy.set(xlabel="epoch", ylabel="accuracy on unseen digits, mean of both")
    accuracy.set_title("Accuracy, one line for each seed")
    accuracy.legend(frameon=False, loc="lower right")
    for axes in (conflicts, accuracy):
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=130)


if __name__ == "__main__":
    main()
