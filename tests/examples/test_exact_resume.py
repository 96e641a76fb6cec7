"""Tests of the example that resumes with the same bits."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.examples.script import run_script


@pytest.mark.whole
@pytest.mark.timeout(120)
def test_resumed_run_has_the_fingerprint_of_the_whole_one(tmp_path: Path) -> None:
    """It says what it has resumed, and both fingerprints."""
    done = run_script("examples/exact_resume.py", folder=tmp_path)
    assert done.code == 0, done.stderr
    told, whole, resumed = done.stdout.splitlines()[-4:-1]
    assert told == "resumed step-00000040: exact"
    assert whole.split()[-1] == resumed.split()[-1]
