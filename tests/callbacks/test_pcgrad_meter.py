"""What is logged of conflicts."""

from __future__ import annotations

import csv
import json
import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch.loggers import CSVLogger

from lightning_elche.callbacks.pcgrad import PCGrad
from lightning_elche.callbacks.pcgrad_meter import AT_ONCE, PCGradMeter, Surgery
from tests.callbacks.two_tasks import ThreeTasks, fit, seeded


def surgery(**changes: Any) -> Surgery:
    """Return one of three tasks, of which the first is in conflict with both others."""
    values: dict[str, Any] = {
        "names": ("a", "b", "c"),
        "gram": [[4.0, -1.0, -2.0], [-1.0, 1.0, 0.5], [-2.0, 0.5, 4.0]],
        "weights": [1.5, 2.0, 0.5],
        "num_projections": 4,
        "is_finite": True,
        "scale": torch.tensor(2.0),
    }
    return Surgery(**(values | changes))


def peaceful() -> Surgery:
    gram = [[4.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 4.0]]
    return surgery(gram=gram, weights=[1.0, 1.0, 1.0], num_projections=0)


def test_means_are_over_the_surgeries_since_the_last_time() -> None:
    """Two conflicts of three pairs, then none."""
    meter = PCGradMeter(eps=1e-12, per_task=False)
    meter.add(surgery())
    meter.add(peaceful())
    assert meter.take() == {
        "pcgrad/conflicts": 1.0,
        "pcgrad/conflict_fraction": pytest.approx(1 / 3),
        "pcgrad/conflict_rate": 0.5,
        "pcgrad/projections": 2.0,
        "pcgrad/num_tasks": 3.0,
        "pcgrad/nonfinite": 0.0,
        "pcgrad/skipped": 0.0,
    }
    assert meter.take() == {"pcgrad/nonfinite": 0.0, "pcgrad/skipped": 0.0}


def test_each_task_has_weight_norm_share_and_conflicts() -> None:
    """Norms are freed of the scale of mixed precision; shares add up to one."""
    meter = PCGradMeter(eps=1e-12, per_task=True)
    meter.add(surgery())
    metrics = meter.take()
    names = ("weight", "grad_norm", "share", "conflicts")
    assert [metrics[f"pcgrad/a/{name}"] for name in names] == [1.5, 1.0, 0.5, 2.0]
    assert [metrics[f"pcgrad/b/{name}"] for name in names] == [2.0, 0.5, pytest.approx(1 / 3), 1.0]
    assert sum(metrics[f"pcgrad/{task}/share"] for task in "abc") == pytest.approx(1.0)


def test_values_that_are_not_finite_are_counted_and_in_no_mean() -> None:
    """One such step would spoil every mean."""
    meter = PCGradMeter(eps=1e-12, per_task=True)
    meter.add(surgery())
    meter.add(surgery(gram=[[torch.nan] * 3] * 3, is_finite=False))
    metrics = meter.take()
    assert (metrics["pcgrad/nonfinite"], metrics["pcgrad/conflicts"]) == (1.0, 2.0)
    assert metrics["pcgrad/a/grad_norm"] == 1.0


def test_memory_does_not_grow_where_nothing_is_logged() -> None:
    """Steps whose scale was not read yet are read in portions."""
    meter = PCGradMeter(eps=1e-12, per_task=True)
    for _ in range(2 * AT_ONCE + 1):
        meter.add(surgery())
    assert len(meter._unscaled) == 1
    assert meter.take()["pcgrad/c/grad_norm"] == 1.0


def test_mean_of_an_epoch_is_that_of_the_fractions() -> None:
    """Not their sum; an epoch without surgery has none."""
    meter = PCGradMeter(eps=1e-12, per_task=False)
    meter.add(surgery())
    meter.add(peaceful())
    assert meter.end_epoch() == pytest.approx(1 / 3)
    assert meter.end_epoch() is None


def test_metrics_are_logged_at_the_steps_of_the_trainer(tmp_path: Path) -> None:
    """Every `log_every_n_steps` optimizer steps, at the step of Lightning's own metrics."""
    logger = CSVLogger(tmp_path, name="", version="")
    fit(seeded("dict"), PCGrad(per_task=True), logger=logger, log_every_n_steps=2)
    with (tmp_path / "metrics.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row.get("pcgrad/num_tasks")]
    assert [(row["step"], row["pcgrad/num_tasks"]) for row in rows] == [
        ("1", "3.0"),
        ("3", "3.0"),
        ("5", "3.0"),
    ]
    assert 0.0 < float(rows[0]["pcgrad/b/grad_norm"]) < 10.0


def test_epoch_full_of_conflicts_is_an_event(caplog: pytest.LogCaptureFixture) -> None:
    """One for each such epoch, and none below the limit."""

    class Opposite(ThreeTasks):
        def losses(self, batch: Any) -> list[torch.Tensor]:
            first = super().losses(batch)[0]
            return [first, -0.5 * first]

    with caplog.at_level(logging.INFO, "lightning_elche.events"):
        fit(Opposite("tuple"), PCGrad(conflict_warn=0.9), max_epochs=2)
        fit(Opposite("tuple"), PCGrad(conflict_warn=1.0))
    events = [json.loads(line.message) for line in caplog.records if line.name.endswith(".events")]
    told = {"event": "pcgrad_conflict", "conflict_fraction": 1.0, "limit": 0.9}
    assert events == [{**told, "epoch": 0}, {**told, "epoch": 1}]
