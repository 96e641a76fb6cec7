"""The files that a run leaves when it stops, and how a scheduler is told to run it again."""

from __future__ import annotations

import logging
import os
import re
import subprocess
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.pytorch.callbacks import ModelCheckpoint, OnExceptionCheckpoint

from lightning_elche.coordination.stopping.stop import SIGNAL_CAUSES, StopConfig
from lightning_elche.partition.checkpoint_errors import CheckpointError
from lightning_elche.partition.fs import this_host
from lightning_elche.partition.read_checkpoint import verify_checkpoint

if TYPE_CHECKING:
    from lightning.pytorch import Trainer

__all__ = [
    "hpc_path",
    "is_loadable",
    "newest_stop",
    "requeue",
    "requeued_job",
    "saves_at_errors",
    "signals_of",
]

log = logging.getLogger(__name__)

HPC = re.compile(r"hpc_ckpt_([0-9]+)\.ckpt")
PATTERNS = ("stop-*.ckpt", "last-stopped.ckpt", "solo-rank*.ckpt", "hpc_ckpt_*.ckpt")
PARTITIONED = "step-*-stop"
SCONTROL_TIMEOUT_S = 10.0


def newest_stop(root: str | Path) -> str | None:
    """Return the newest checkpoint that a stopped run has left and that is whole, for `ckpt_path`.

    Args:
        root: Where to look, folders below included.

    Returns:
        `None` if there is none. A newer one that is damaged is passed over, with a warning.
    """
    base = Path(root)
    names = (*PATTERNS, PARTITIONED)
    found = {path for name in names for path in base.rglob(name) if ".trash" not in path.parts}
    for path in sorted(found, key=lambda path: (path.stat().st_mtime_ns, str(path)), reverse=True):
        if is_loadable(path):
            return str(path)
        log.warning("%s is damaged or incomplete, and is passed over.", path)
    return None


def is_loadable(path: Path) -> bool:
    """Return whether a checkpoint has all of its bytes; it is read in full, nothing is executed."""
    if path.is_dir():
        return _is_whole_folder(path)
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
            return archive.testzip() is None and any(name.endswith("data.pkl") for name in names)
    except (OSError, zipfile.BadZipFile):
        return False


def _is_whole_folder(path: Path) -> bool:
    if (path / "meta.pt").is_file():  # as Lightning writes for sharded models
        return (path / ".metadata").is_file()
    try:
        verify_checkpoint(this_host().fs, path)
    except (CheckpointError, OSError):
        return False
    return True


def hpc_path(root: str | Path) -> Path:
    """Return the next `hpc_ckpt_N.ckpt`, which Lightning resumes from by itself."""
    folder = Path(root)
    found = (HPC.fullmatch(path.name) for path in folder.glob("hpc_ckpt_*.ckpt"))
    return folder / f"hpc_ckpt_{max((int(m.group(1)) for m in found if m), default=0) + 1}.ckpt"


def requeued_job(
    trainer: Trainer, setting: Literal["auto", "always", "never"], env: Mapping[str, str]
) -> str | None:
    """Return the job that SLURM is to run again, `None` if it is not.

    Args:
        trainer: Has the cluster environment.
        setting: As `StopConfig.requeue`.
        env: Variables of the environment.
    """
    job = env.get("SLURM_JOB_ID")
    if setting == "never" or job is None:
        return None
    if setting == "auto":
        cluster = getattr(trainer.strategy, "cluster_environment", None)
        if not (isinstance(cluster, SLURMEnvironment) and cluster.auto_requeue):
            return None
    array = env.get("SLURM_ARRAY_JOB_ID")
    return job if array is None else f"{array}_{env['SLURM_ARRAY_TASK_ID']}"


def requeue(job: str) -> None:
    """Tell SLURM to run a job again; that this fails is logged, since the checkpoint is there."""
    try:
        subprocess.run(
            ["scontrol", "requeue", job],
            check=True,
            capture_output=True,
            text=True,
            timeout=SCONTROL_TIMEOUT_S,
            env=dict(os.environ),
        )
        log.info("SLURM runs job %s again.", job)
    except (OSError, subprocess.SubprocessError) as err:
        detail = getattr(err, "stderr", None) or err
        log.warning("SLURM could not be told to run job %s again: %s", job, detail)


def saves_at_errors(trainer: Trainer) -> list[str]:
    """Return the callbacks that save when an error ends a run, by the names of their classes."""
    callbacks: list[Any] = trainer.callbacks  # type: ignore[attr-defined]  # set by a connector
    return [
        type(callback).__name__
        for callback in callbacks
        if isinstance(callback, OnExceptionCheckpoint)
        or (isinstance(callback, ModelCheckpoint) and getattr(callback, "save_on_exception", False))
    ]


def signals_of(trainer: Trainer, config: StopConfig) -> tuple[str, ...]:
    """Return the signals to heed, with that of SLURM for a requeue."""
    cluster = getattr(trainer.strategy, "cluster_environment", None)
    if not (isinstance(cluster, SLURMEnvironment) and cluster.auto_requeue):
        return config.signals
    wanted = getattr(cluster.requeue_signal, "name", "")
    extra = (wanted,) if wanted in SIGNAL_CAUSES else ()
    return tuple(dict.fromkeys((*config.signals, *extra)))
