"""Classify scikit-learn's handwritten digits in a training loop of one's own, on Fabric."""

from __future__ import annotations

import argparse
import time

import torch
from classify_digits import DigitClassifier, digit_loaders
from lightning.fabric import Fabric, seed_everything
from quiet_lightning import quiet_lightning
from slow_rank import SlowDown
from torch.nn import functional as F
from torch.utils.data import DataLoader

from lightning_elche import ElCheLoop


def main() -> None:
    """Train, and print the accuracy and what each rank contributed."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    quiet_lightning()
    seed_everything(0, verbose=False)
    fabric = Fabric(accelerator="cpu", devices=2, strategy="ddp")
    fabric.launch()
    # Not `fabric.setup`: the loop averages parameters, so that gradients stay where they are.
    model = fabric.to_device(DigitClassifier().layers)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    slow_down = SlowDown(factor=4.0 if fabric.global_rank == 1 else 1.0)

    train, val = digit_loaders()
    shuffled = DataLoader(train.dataset, 16, shuffle=True, generator=torch.Generator())
    with ElCheLoop(fabric, model, [optimizer]) as loop:
        for _ in range(20):
            for images, digits in loop.epoch(shuffled):
                begun = time.perf_counter()
                loss = F.cross_entropy(model(images), digits)
                loss.backward()
                optimizer.step()
                optimizer.zero_grad()
                loop.add_loss(loss)
                slow_down.stretch(time.perf_counter() - begun)

    if fabric.is_global_zero and loop.epoch_metrics:
        images, digits = next(iter(DataLoader(val.dataset, 10_000)))
        accuracy = (model(images).argmax(dim=1) == digits).float().mean().item()
        print(f"accuracy on unseen digits   {accuracy:.1%}")
        for rank, share in enumerate(loop.epoch_metrics.share):
            print(f"share of rank {rank}             {share:.1%}")
        print(loop.explain(last=2))


if __name__ == "__main__":
    main()
