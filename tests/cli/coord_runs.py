"""Runs that the command line looks at, without training."""

from __future__ import annotations

import time
from pathlib import Path

from lightning_elche.coordination.health import Health, summary
from lightning_elche.coordination.lifecycle import RunState
from lightning_elche.coordination.run_index import add_run
from lightning_elche.coordination.status import STATUS_NAME, status_bytes

__all__ = ["write_run"]


def write_run(
    root: Path,
    state: RunState = RunState.RUNNING,
    *,
    ok: bool = True,
    age_s: float = 0.0,
    coord_dir: Path | None = None,
    **more: object,
) -> Path:
    """Write the status of a run, enter it if `coord_dir` is given, and return its folder."""
    folder = root / "elche"
    folder.mkdir(parents=True, exist_ok=True)
    told = {
        **summary(state, Health(ok=ok, reason="as the test wants it"), []),
        "written_at": time.time() - age_s,
        "global_step": 7,
        "epoch": 2,
        **more,
    }
    (folder / STATUS_NAME).write_bytes(status_bytes(told))
    if coord_dir is not None:
        add_run(coord_dir, str(folder), started_at=time.time())
    return folder
