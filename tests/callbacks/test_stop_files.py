"""Who is told to run a job again, by which signal, and where its checkpoint goes."""

from __future__ import annotations

import signal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment

from lightning_elche.callbacks.stop_files import hpc_path, requeued_job, signals_of
from lightning_elche.coordination.stopping.stop import StopConfig

JOB = {"SLURM_JOB_ID": "17"}
TASK = {**JOB, "SLURM_ARRAY_JOB_ID": "12", "SLURM_ARRAY_TASK_ID": "3"}


def trainer_in(cluster: object) -> Any:
    return SimpleNamespace(strategy=SimpleNamespace(cluster_environment=cluster))


@pytest.mark.parametrize(
    ("setting", "cluster", "env", "job"),
    [
        ("auto", SLURMEnvironment(auto_requeue=True), JOB, "17"),
        ("auto", SLURMEnvironment(auto_requeue=True), TASK, "12_3"),
        ("auto", SLURMEnvironment(auto_requeue=True), {}, None),
        ("auto", SLURMEnvironment(auto_requeue=False), JOB, None),
        ("auto", None, JOB, None),
        ("always", None, JOB, "17"),
        ("never", SLURMEnvironment(auto_requeue=True), JOB, None),
    ],
)
def test_job_is_run_again_where_that_was_asked_for(
    setting: Any, cluster: object, env: dict[str, str], job: str | None
) -> None:
    """By itself only where Lightning would do so as well."""
    assert requeued_job(trainer_in(cluster), setting, env) == job


def test_signal_of_a_requeue_is_heeded_as_well() -> None:
    """Whichever the environment of SLURM has been given."""
    cluster = SLURMEnvironment(auto_requeue=True, requeue_signal=signal.SIGUSR2)
    assert signals_of(trainer_in(cluster), StopConfig(signals=("SIGTERM",))) == (
        *("SIGTERM", "SIGUSR2"),
    )
    assert signals_of(trainer_in(None), StopConfig(signals=("SIGTERM",))) == ("SIGTERM",)


def test_checkpoint_of_a_requeue_has_the_next_number(tmp_path: Path) -> None:
    """The highest, not the last in the order of names; that is the one which Lightning loads."""
    assert hpc_path(tmp_path).name == "hpc_ckpt_1.ckpt"
    for name in ("hpc_ckpt_9.ckpt", "hpc_ckpt_10.ckpt", "hpc_ckpt_x.ckpt"):
        (tmp_path / name).touch()
    assert hpc_path(tmp_path) == tmp_path / "hpc_ckpt_11.ckpt"
