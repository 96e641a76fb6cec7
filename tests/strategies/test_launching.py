"""Starting the ranks: by Lightning's launchers, torchrun and the command line."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint

from lightning_elche.testing import run_ranks
from tests.examples.script import run_script
from tests.ranks import fit

pytestmark = pytest.mark.slow

SCRIPT = """
import sys

import lightning_elche
from tests.ranks import Recorder, make_loader, make_trainer

if __name__ == "__main__":
    trainer = make_trainer(2, strategy=sys.argv[1])
    trainer.fit(Recorder((1.0, 4.0)), make_loader(200))
    sys.stdout.write(f"steps {trainer.global_step}\\n")
"""


def run(script: Path, *arguments: str) -> str:
    """Run a script with these arguments and return what it printed."""
    finished = run_script(str(script), *arguments, folder=script.parent, timeout_s=100.0)
    assert finished.code == 0, finished.stderr
    return finished.stdout


@pytest.mark.parametrize(
    ("strategy", "told"), [("elche", 2), ("elche_spawn", 0), ("elche_fork", 0)]
)
def test_trainer_launches_the_ranks_by_name(strategy: str, told: int, tmp_path: Path) -> None:
    """`strategy="elche"` starts both ranks from one command."""
    script = tmp_path / "train.py"
    script.write_text(SCRIPT)
    # A spawned rank leaves the parent's Trainer without its step count, as in stock Lightning.
    assert run(script, strategy).count("steps 50") == told


def test_torchrun_launches_the_ranks(tmp_path: Path) -> None:
    """The Trainer starts nothing by itself then."""
    script = tmp_path / "train.py"
    script.write_text(SCRIPT)
    torchrun = Path(sys.executable).with_name("torchrun")
    printed = run_script(
        str(torchrun), "--nproc-per-node", "2", str(script), "elche", folder=tmp_path
    )
    assert (printed.code, printed.stdout.count("steps 50")) == (0, 2), printed.stderr


CLI = """
import sys

from lightning.pytorch.cli import LightningCLI
from tests.ranks import Recorder, make_loader


class Model(Recorder):
    def __init__(self) -> None:
        super().__init__((1.0, 4.0))

    def train_dataloader(self):
        return make_loader(200)


if __name__ == "__main__":
    cli = LightningCLI(Model, save_config_callback=None, seed_everything_default=7)
    config = cli.trainer.strategy._config.cadence
    sys.stdout.write(f"steps {cli.trainer.global_step} anchor {config.anchor}\\n")
"""

CONFIG = """
trainer:
  accelerator: cpu
  devices: 2
  max_epochs: 1
  logger: false
  enable_checkpointing: false
  enable_progress_bar: false
  limit_val_batches: 0
  strategy:
    class_path: lightning_elche.ElCheStrategy
    init_args:
      timeout_s: 60
      cadence:
        anchor: 3
"""


def save_within_an_epoch(folder: str) -> None:
    saver = ModelCheckpoint(folder, every_n_train_steps=20, save_top_k=-1, filename="{step}")
    fit(2, delays_ms=(1.0, 4.0), callbacks=[saver], enable_checkpointing=True)


def test_cli_builds_the_strategy_and_resumes_within_an_epoch(tmp_path: Path) -> None:
    """A class path and nested options in YAML reach it, and so does `--ckpt_path`."""
    script, config = tmp_path / "cli.py", tmp_path / "config.yaml"
    script.write_text(CLI)
    config.write_text(CONFIG)
    run_ranks(save_within_an_epoch, world_size=2, folder=str(tmp_path))
    first = min(tmp_path.glob("step=*.ckpt"), key=lambda file: int(file.stem.split("=")[1]))
    assert 20 <= torch.load(first, weights_only=True)["global_step"] < 50
    resume = ("fit", "--config", str(config), "--ckpt_path", str(first))
    assert run(script, *resume).count("steps 50 anchor 3") == 2
