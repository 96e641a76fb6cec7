"""How long runs of several kinds are taken to last, and their checkpoints to be saved."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
import torch

from lightning_elche.callbacks.coordination import Coordination
from lightning_elche.callbacks.governor_hooks import HostHooks
from lightning_elche.callbacks.host_saves import state_bytes
from lightning_elche.coordination.config import CoordinationConfig
from lightning_elche.coordination.monitoring.metrics_status import dig
from lightning_elche.coordination.registry.limits import LimitsConfig
from lightning_elche.coordination.schedule.schedule import ScheduleConfig
from tests.ranks import Recorder, fit, make_trainer

HOUR_S = 3600.0


@pytest.mark.parametrize(
    ("kind", "defaults_s", "expected_s"),
    [
        ("train", {}, 4.0 * HOUR_S),
        ("sweep", {}, 8.0 * HOUR_S),
        ("sweep", {"sweep": 60.0}, 60.0),
        ("ablation", {}, 4.0 * HOUR_S),
    ],
)
def test_run_takes_as_long_as_others_of_its_kind(
    kind: str, defaults_s: dict[str, float], expected_s: float, tmp_path: Path
) -> None:
    """One of which nothing is known takes as long as a training; what it took is kept by kind."""
    limits = LimitsConfig(kind=kind, per_host={"ablation": 1})
    config = CoordinationConfig(limits=limits, schedule=ScheduleConfig(defaults_s=defaults_s))
    told: list[object] = []

    def look(*_: object) -> None:
        status = coordination.run.status()
        told.append(dig(status, "components", "host", "status", "run", "expected_seconds"))

    coordination = Coordination(config, subscribers=[("epoch_end", look)])
    fit(
        1,
        size=8,
        val_size=4,
        callbacks=[coordination],
        default_root_dir=tmp_path,
        strategy="auto",
    )
    line = (tmp_path / "elche" / "durations.jsonl").read_text()
    assert (told, json.loads(line)["kind"]) == ([expected_s], kind)


def test_checkpoint_that_was_never_timed_is_taken_to_hold_the_optimizer(tmp_path: Path) -> None:
    """Two moments for each parameter, so that the stop before a deadline comes early enough."""
    module = Recorder()
    assert state_bytes(module) == 3 * 4 * 97 + 4 * (8 + 8) + 8
    env = {"SLURM_JOB_ID": "1", "SLURM_JOB_END_TIME": "4102444800"}
    hooks = HostHooks(environment=env)
    trainer = make_trainer(1, strategy="auto", default_root_dir=tmp_path)
    hooks.setup(trainer, Large(), "fit")
    due, _ = hooks.deadline()
    assert due is not None
    left_s = 4102444800.0 - time.time() - (due - time.monotonic())
    assert left_s == pytest.approx(5.0 + 1.5 * 3.0, abs=0.1)


class Large(Recorder):
    """Has 200 MB of parameters, of which nothing is ever touched."""

    def __init__(self) -> None:
        super().__init__()
        self.ballast = torch.nn.Parameter(torch.empty(50_000_000))
