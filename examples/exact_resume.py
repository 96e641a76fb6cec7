"""Stop a run in the middle of an epoch, and resume it with the bits of one that never stopped.

The model has dropout and the digits are shuffled. Three runs: one that goes through, one that stops
early, and one that resumes it in a process with another seed. The fingerprints must be equal.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from classify_digits import DigitClassifier, digit_loaders
from lightning.pytorch import Trainer, seed_everything
from quiet_lightning import quiet_lightning
from torch import Tensor

from lightning_elche import PartitionCheckpoint
from lightning_elche.partition import CheckpointPolicy
from lightning_elche.partition.fs import LocalFs
from lightning_elche.partition.read_checkpoint import read_manifest

STEPS, STOP_AT = 100, 40


class DropoutClassifier(DigitClassifier):
    """Draws random numbers at each step."""

    def training_step(self, batch: tuple[Tensor, Tensor]) -> torch.Tensor:
        """Drop a tenth of the pixels."""
        images, labels = batch
        return super().training_step((torch.dropout(images, 0.1, train=True), labels))


def train(root: Path, *, steps: int, seed: int, resume: Path | None = None) -> str:
    """Train up to a step, and return the fingerprint of the last checkpoint."""
    seed_everything(seed, verbose=False)
    saver = PartitionCheckpoint(root, policy=CheckpointPolicy(every_steps=20))
    trainer = Trainer(
        accelerator="cpu",
        devices=1,
        max_steps=steps,
        callbacks=[saver],
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    train_loader, _ = digit_loaders()
    trainer.fit(DropoutClassifier(), train_loader, ckpt_path=resume)
    if saver.last_restore is not None:
        print(f"resumed {saver.last_restore.path.name}: {saver.last_restore.replay}")
    assert saver.latest is not None
    return f"{read_manifest(LocalFs(), saver.latest).value:#018x}"


def main() -> None:
    """Run all three, and compare."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--out", type=Path, default=Path("runs/exact_resume"))
    out: Path = parser.parse_args().out
    quiet_lightning()
    whole = train(out / "whole", steps=STEPS, seed=0)
    train(out / "stopped", steps=STOP_AT, seed=0)
    resumed = train(out / "stopped", steps=STEPS, seed=1, resume=out / "stopped")
    print(f"whole run   {whole}\nresumed run {resumed}")
    if whole != resumed:
        raise SystemExit("the fingerprints differ")
    print("The fingerprints are equal: the resumed run ended as the whole one did.")


if __name__ == "__main__":
    main()
