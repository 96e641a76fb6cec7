"""The folder of a healthy run, for the tests that judge it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.contracts.runs import train_healthily


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    return train_healthily(tmp_path / "run")
