"""What is logged of an averaging event, and when."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from lightning_elche import CadenceMonitor
from lightning_elche.callbacks.cadence_monitor_metrics import metrics_of
from lightning_elche.control.reports import Report
from tests.control.test_events import event_of
from tests.ranks import fit

TABLE = Path(__file__).parents[2] / "docs" / "metrics.md"
EVENT = event_of(
    Report(compute_ms=90.0, input_ms=9.0, wait_ms=5.0, transfer_ms=5.0, skipped=1),
    Report(compute_ms=60.0, input_ms=21.0, wait_ms=35.0, transfer_ms=5.0, skipped=2),
)


def test_waiting_and_skipping_are_those_of_all_ranks() -> None:
    """A fifth of the computing went into waiting for data, and three batches were left out."""
    metrics = metrics_of(EVENT)
    assert metrics["elche/input_ratio"] == pytest.approx(0.2)
    assert metrics["elche/skipped"] == 3.0
    assert not any("rank" in name for name in metrics)


def test_each_rank_has_its_own_numbers_on_request() -> None:
    """Share, steps, and the parts that it waited for data and for others."""
    metrics = metrics_of(EVENT, per_rank=True)
    own = {name[12:]: value for name, value in metrics.items() if name.startswith("elche/rank1/")}
    assert own.pop("input_ratio") == pytest.approx(0.35)
    assert own == {"share": 0.5, "local_steps": 10.0, "batch_ms": 0.0, "wait_ratio": 0.35}


def test_documentation_names_what_is_logged() -> None:
    """All of it, and nothing else."""
    text = TABLE.read_text(encoding="utf-8")
    cells = re.findall(r"^\| (`elche/.*?) \|", text, re.MULTILINE)
    named = {name for cell in cells for name in re.findall(r"`(.*?)`", cell)}
    named |= {f"elche/batch_ms{name}" for name in named if name.startswith("/")}
    logged = {name.replace("rank0", "rank{r}") for name in metrics_of(EVENT, per_rank=True)}
    logged = {name for name in logged if "rank1" not in name}
    assert {name for name in named if not name.startswith("/")} == logged


def test_every_nth_average_is_logged() -> None:
    """By its index, at the step of all ranks."""
    logged: list[tuple[float, int]] = []
    logger = SimpleNamespace(log_metrics=lambda metrics, step: logged.append((len(metrics), step)))
    trainer: Any = SimpleNamespace(
        strategy=object(), callbacks=[], loggers=[logger], is_global_zero=True
    )
    monitor = CadenceMonitor(every_n_averages=3, events=False, progress_bar=False)
    monitor.setup(trainer, SimpleNamespace(), "fit")  # type: ignore[arg-type]  # not used
    for index in range(7):
        monitor.on_average_end(dataclasses.replace(EVENT, index=index, global_step=10 * index))
    assert [step for _, step in logged] == [0, 30, 60]


def test_without_events_nothing_is_written(tmp_path: Path) -> None:
    """Not even a folder."""
    monitor = CadenceMonitor(events=False)
    fit(1, size=8, val_size=4, default_root_dir=tmp_path, callbacks=[monitor])
    assert list(tmp_path.iterdir()) == []
