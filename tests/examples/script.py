"""Runs a script as a user would, with a hard limit on its time."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True, kw_only=True)
class Finished:
    """How a script ended and what it wrote."""

    code: int
    stdout: str
    stderr: str


def run_script(path: str, *arguments: str, folder: Path, timeout_s: float = 240.0) -> Finished:
    """Run `path` of the repository in `folder`, in a session of its own that ends with it."""
    search = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    process = subprocess.Popen(
        [sys.executable, str(ROOT / path), *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(search)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        stdout, stderr = process.communicate(timeout=timeout_s)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        stdout, stderr = process.communicate()
        pytest.fail(f"{path} had not ended after {timeout_s:g} s\n{stdout}\n{stderr}")
    return Finished(code=process.returncode, stdout=stdout, stderr=stderr)
