"""The code that README and docs show runs, in the order of each page."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import LightningDataModule, LightningModule, Trainer
from lightning.pytorch.cli import LightningCLI

from lightning_elche.testing import run_ranks
from tests.ranks import Recorder, make_loader

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
SIZE = 40
NEEDS = {"import ray": "ray"}


class Data(LightningDataModule):
    """What the pages call `datamodule`."""

    def train_dataloader(self) -> Any:
        return make_loader(SIZE)

    def val_dataloader(self) -> Any:
        return make_loader(8)


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(encoding="utf-8"), re.M | re.S)


def pages_with(language: str) -> list[Any]:
    found = [page for page in PAGES if blocks(page, language)]
    return [pytest.param(page, id=page.relative_to(ROOT).as_posix()) for page in found]


def is_of_ranks(code: str) -> bool:
    return "devices=2" in code and ".fit(" in code


def read(_: Any, path: str) -> str:
    return path


def names() -> dict[str, Any]:
    """What a page takes for granted."""
    own: dict[str, Any] = {
        "LightningModule": LightningModule,
        "Trainer": Trainer,
        "datamodule": Data(),
        "grad_a": torch.tensor([1.0, 0.0]),
        "grad_b": torch.tensor([-1.0, 1.0]),
        "loader": make_loader(SIZE),
        "make_data": Data,
        "make_model": Recorder,
        "model": Recorder(),
        "read": read,
        "step": 0,
    }
    return own


def run_page(page: Path, *, of_ranks: bool) -> None:
    shared = names()
    for code in blocks(page, "python"):
        if is_of_ranks(code) is of_ranks:
            exec(compile(code, str(page), "exec"), shared)


@pytest.fixture
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.usefixtures("_in_a_folder_of_its_own")
@pytest.mark.filterwarnings("ignore")  # advice of Lightning on the short runs of the pages
@pytest.mark.parametrize("page", pages_with("python"))
def test_code_of_a_page_runs(page: Path) -> None:
    """All of its blocks for one process, one after the other."""
    text = page.read_text(encoding="utf-8")
    for mark, package in NEEDS.items():
        if mark in text:
            pytest.importorskip(package)
    run_page(page, of_ranks=False)


def run_pages_of_ranks(folder: str) -> list[str]:
    os.chdir(folder)
    done = []
    for page in PAGES:
        if any(is_of_ranks(code) for code in blocks(page, "python")):
            run_page(page, of_ranks=True)
            done.append(page.name)
    return done


@pytest.mark.slow
def test_code_for_two_ranks_trains(tmp_path: Path) -> None:
    """As the README and the first pages show it."""
    ranks = run_ranks(run_pages_of_ranks, world_size=2, folder=str(tmp_path))
    assert ranks[0].value[:1] == ["README.md"]
    assert (tmp_path / "swimlane.png").exists()


@pytest.mark.usefixtures("_in_a_folder_of_its_own")
@pytest.mark.filterwarnings("ignore")
def test_configuration_of_a_page_is_taken() -> None:
    """LightningCLI builds the Trainer, strategy and callbacks that the page shows."""
    page = ROOT / "docs" / "how-to" / "lightning-cli.md"
    Path("run.yaml").write_text(blocks(page, "yaml")[0], encoding="utf-8")
    cli = LightningCLI(Recorder, Data, run=False, args=["--config", "run.yaml"])
    names = [type(callback).__name__ for callback in cli.trainer.callbacks]
    assert {"CadenceMonitor", "Rollback", "PartitionCheckpoint"} <= set(names)
    assert type(cli.trainer.strategy).__name__ == "ElCheStrategy"


def commands() -> list[str]:
    """Return the commands of `elche` that pages show and that need no file."""
    shown = [block for page in PAGES for block in blocks(page, "bash")]
    lines = {line for block in shown for line in block.splitlines()}
    return sorted(line for line in lines if line.startswith("elche simulate"))


@pytest.mark.usefixtures("_in_a_folder_of_its_own")
@pytest.mark.parametrize("command", commands())
def test_command_of_a_page_runs(command: str) -> None:
    """And ends with 0."""
    words = [sys.executable, "-m", "lightning_elche", *command.split()[1:]]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, env=environment)
    assert done.returncode == 0, done.stderr
