"""Tests of the example that is halted and goes on."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

from tests.examples.script import run_script

SCRIPT = "examples/stop_cleanly.py"


@pytest.mark.whole
@pytest.mark.timeout(300)
def test_the_example_is_halted_and_goes_on(tmp_path: Path) -> None:
    """The commands leave a checkpoint each, and the second start goes on from the last one."""
    options = ("--devices", "1", "--checkpoint-at", "10", "--halt-at", "300")
    halted = run_script(SCRIPT, *options, folder=tmp_path)
    assert halted.code == 143, halted.stderr
    assert re.match(r"stopped at step \d+ .*; start it again", halted.stdout)
    folder = tmp_path / "runs/stop_cleanly/elche"
    (requested,), (stopped,) = folder.glob("requested-*.ckpt"), folder.glob("stop-*.ckpt")
    assert not any((folder / name).exists() for name in ("HALT", "CHECKPOINT"))
    assert requested.stat().st_size > 0
    epochs = torch.load(stopped, weights_only=True)["epoch"] + 2
    finished = run_script(SCRIPT, "--devices", "1", "--epochs", str(epochs), folder=tmp_path)
    assert finished.code == 0, finished.stderr
    assert finished.stdout.startswith(f"going on from {stopped.name}\ndone at step ")
