"""Tests of processes that belong together."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import processes
import pytest
from processes import Command, RankFailed, run_together

FOREVER = "import time; time.sleep(600)"
CORE = min(os.sched_getaffinity(0))


def python(code: str, **environment: str) -> Command:
    """Return a command that runs `code`."""
    return Command(arguments=[sys.executable, "-S", "-c", code], environment=environment, core=CORE)


@pytest.fixture(autouse=True)
def _short_grace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "GRACE_S", 0.1)


def test_all_run_with_their_environment_on_their_core(tmp_path: Path) -> None:
    """Rank and core reach the process."""
    code = "import os; print(os.environ['RANK'], *os.sched_getaffinity(0))"
    # A process that sets its affinity by itself would do so before it starts threads.
    code = f"import time; time.sleep(0.2); {code}"
    commands = [python(code, RANK=str(rank)) for rank in range(2)]
    run_together(commands, timeout_s=30.0, folder=tmp_path)
    logs = [(tmp_path / f"rank{rank}.log").read_text().split() for rank in range(2)]
    assert logs == [["0", str(CORE)], ["1", str(CORE)]]


def test_a_failing_rank_ends_the_others_and_shows_its_output(tmp_path: Path) -> None:
    """Nobody waits for a peer that is gone."""
    begun = time.monotonic()
    commands = [python(FOREVER), python("raise ValueError('the reason')")]
    with pytest.raises(RankFailed, match=r"rank 1 ended with exit code 1[^$]*the reason"):
        run_together(commands, timeout_s=300.0, folder=tmp_path)
    assert time.monotonic() - begun < 60.0


def test_a_run_that_takes_too_long_is_ended(tmp_path: Path) -> None:
    """The rank that still ran is named."""
    with pytest.raises(RankFailed, match="rank 0 had not ended after 0 s"):
        run_together([python(FOREVER)], timeout_s=0.1, folder=tmp_path)


def test_what_a_process_started_ends_with_it(tmp_path: Path) -> None:
    """The whole session is killed."""
    code = f"import subprocess, sys; p = subprocess.Popen([sys.executable, '-c', {FOREVER!r}]);"
    code += "print(p.pid, flush=True); p.wait()"
    with pytest.raises(RankFailed):
        run_together([python(code)], timeout_s=1.0, folder=tmp_path)
    child = int((tmp_path / "rank0.log").read_text())
    assert is_gone(child)


def is_gone(pid: int) -> bool:
    """Return whether a process ends within a few seconds; a zombie has ended."""
    status = Path(f"/proc/{pid}/stat")
    for _ in range(100):
        if not status.exists() or status.read_text().rsplit(")", 1)[1].split()[0] == "Z":
            return True
        time.sleep(0.05)
    return False
