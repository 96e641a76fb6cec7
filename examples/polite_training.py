"""Train politely: give way while somebody else uses the CPUs, and take them back afterwards."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from typing import Any

import torch
from classify_digits import DigitClassifier, digit_loaders
from lightning.pytorch import Callback, LightningModule, Trainer, seed_everything
from quiet_lightning import quiet_lightning
from typing_extensions import override

from lightning_elche import Coordination
from lightning_elche.coordination import CoordinationConfig, GovernorConfig, TargetConfig

PHASES = ("alone", "with others", "alone again")


def main() -> None:
    """Train in three phases, and print how much of the time the training worked in each."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=6.0, help="of each phase")
    options = parser.parse_args()
    quiet_lightning()
    torch.set_num_threads(1)  # the model is small
    seed_everything(0, verbose=False)

    config = CoordinationConfig(
        # It looks more often than once a second, so that the phases can be short.
        governor=GovernorConfig(enabled=True, signal="cpu", period_s=options.seconds / 16),
        targets=TargetConfig(max_pct=85.0, optimal_pct=80.0),
    )
    coordination = Coordination(config)
    phases = Phases(coordination, options.seconds)
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(
            accelerator="cpu",
            devices=1,
            max_epochs=-1,
            callbacks=[coordination, phases],
            logger=False,
            enable_checkpointing=False,
            enable_model_summary=False,
            enable_progress_bar=False,
            default_root_dir=folder,
        )
        trainer.fit(DigitClassifier(), *digit_loaders())

    for name, work in zip(PHASES, phases.work, strict=True):
        print(f"{name:14}{work:6.0%} of the time for training")


class Phases(Callback):
    """Lets other processes use all CPUs in the second of three phases, then ends the training."""

    def __init__(self, coordination: Coordination, seconds: float) -> None:
        self.coordination, self.seconds = coordination, seconds
        self.work: list[float] = []  # part of each phase
        self.others: list[subprocess.Popen[bytes]] = []

    @override
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._began, self._slept_before = time.perf_counter(), self.slept_s()

    @override
    def on_train_batch_end(self, trainer: Trainer, *batch: object) -> None:
        elapsed = time.perf_counter() - self._began
        if trainer.should_stop or elapsed < self.seconds:
            return
        self.work.append(1.0 - (self.slept_s() - self._slept_before) / elapsed)
        self._began, self._slept_before = time.perf_counter(), self.slept_s()
        if len(self.work) == 1:
            self.others = [compute() for _ in range(os.cpu_count() or 1)]
        else:
            self.end_others()
        trainer.should_stop = len(self.work) == len(PHASES)

    @override
    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        self.end_others()

    def end_others(self) -> None:
        """End the other processes."""
        for process in self.others:
            process.kill()
            process.wait()
        self.others = []

    def slept_s(self) -> float:
        """Return for how long the training has slept, from what `status.json` shows as well."""
        components: Any = self.coordination.run.status()["components"]
        return float(components["host"]["status"]["governor"]["slept_s"])


def compute() -> subprocess.Popen[bytes]:
    """Start a process that keeps a CPU busy."""
    return subprocess.Popen([sys.executable, "-c", "while True: pass"])


if __name__ == "__main__":
    main()
