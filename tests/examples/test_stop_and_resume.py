"""Tests of the example that stops and goes on."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.examples.script import run_script

SCRIPT = "examples/stop_and_resume.py"


@pytest.mark.whole
@pytest.mark.timeout(300)
def test_the_example_goes_on_where_it_was_stopped(tmp_path: Path) -> None:
    """The second start makes only the steps that the first one has left."""
    stopped = run_script(SCRIPT, "--stop-at", "500", folder=tmp_path)
    assert stopped.code == 143, stopped.stderr
    file = tmp_path / "runs/stop_and_resume/last-stopped.ckpt"
    assert 500 <= torch.load(file, weights_only=True)["global_step"] < 1000
    finished = run_script(SCRIPT, folder=tmp_path)
    assert finished.code == 0, finished.stderr
    assert finished.stdout.endswith("done at step 1800, epoch 20\n")
