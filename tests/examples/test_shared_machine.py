"""Tests of the example of a machine that runs share."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from tests.examples.script import run_script


@pytest.mark.whole
@pytest.mark.timeout(120)
def test_no_other_run_may_start_while_the_example_trains(tmp_path: Path) -> None:
    """Afterwards one may."""
    finished = run_script("examples/shared_machine.py", folder=tmp_path, timeout_s=100.0)
    assert finished.code == 0, finished.stderr
    here = socket.gethostname()
    assert finished.stdout.splitlines() == [
        f"may another run start now? no: 1 of kind train on {here}, 1 allowed",
        "STOPPED after 5 epochs, healthy: True",
        "may another run start now? yes",
    ]
