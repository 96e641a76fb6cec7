"""The monitor logs from shared data, shows two fields, and draws a picture."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest
from lightning.pytorch.callbacks import TQDMProgressBar
from lightning.pytorch.loggers import CSVLogger

from lightning_elche import CadenceMonitor
from lightning_elche.testing import run_ranks
from tests.ranks import fit

pytestmark = pytest.mark.slow


class Bar(TQDMProgressBar):
    """Remembers what it was told to show."""

    def __init__(self) -> None:
        super().__init__()
        self.shown: list[tuple[int, int]] = []
        self.fields: set[str] = set()

    def on_train_batch_end(
        self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)
        self.shown.append((int(self.train_progress_bar.n), int(self.train_progress_bar.total)))
        self.fields |= set(self.get_metrics(trainer, pl_module))


def fit_with_bar() -> tuple[list[tuple[int, int]], set[str]]:
    bar = Bar()
    fit(2, delays_ms=(2.0, 8.0), enable_progress_bar=True, callbacks=[bar, CadenceMonitor()])
    return bar.shown, bar.fields


def test_progress_bar_counts_the_batches_of_all_ranks() -> None:
    """The total is that of all ranks, the count never falls, and it reaches the total."""
    shown, _ = run_ranks(fit_with_bar, world_size=2)[0].value
    counts = [count for count, _ in shown]
    assert {total for _, total in shown} == {50}
    assert counts == sorted(counts)
    assert counts[-1] == 50


def test_progress_bar_gets_two_fields() -> None:
    """Anchor and idle time are shown beside what the model logs."""
    _, fields = run_ranks(fit_with_bar, world_size=2)[0].value
    assert fields == {"anchor", "idle"}


def fit_with_logger(folder: str, options: dict[str, Any]) -> None:
    logger = CSVLogger(folder, version=0, flush_logs_every_n_steps=1)
    monitor = CadenceMonitor(**options)
    fit(2, size=400, delays_ms=(2.0, 8.0), logger=logger, callbacks=[monitor], log_every_n_steps=5)


def logged(folder: Path) -> list[dict[str, str]]:
    with (folder / "lightning_logs" / "version_0" / "metrics.csv").open() as file:
        return [row for row in csv.DictReader(file) if row.get("elche/anchor")]


def test_metrics_are_logged_once_per_event(tmp_path: Path) -> None:
    """Every event is a row, at the step count of all ranks."""
    run_ranks(fit_with_logger, world_size=2, folder=str(tmp_path), options={})
    rows = logged(tmp_path)
    steps = [int(row["step"]) for row in rows]
    assert steps == sorted(set(steps))
    assert steps[-1] == 100
    assert float(rows[-1]["elche/share"]) > 0.6


def test_metrics_of_each_rank_are_logged_on_request(tmp_path: Path) -> None:
    """`per_rank` adds share, step count and step time of every rank."""
    run_ranks(fit_with_logger, world_size=2, folder=str(tmp_path), options={"per_rank": True})
    row = logged(tmp_path)[-1]
    assert float(row["elche/rank0/share"]) + float(row["elche/rank1/share"]) == pytest.approx(1.0)
    assert float(row["elche/rank1/batch_ms"]) > float(row["elche/rank0/batch_ms"])


def test_report_is_drawn_at_the_end(tmp_path: Path) -> None:
    """The picture is a PNG file of some size."""
    report = tmp_path / "lanes.png"
    options = {"report": str(report)}
    run_ranks(fit_with_logger, world_size=2, folder=str(tmp_path), options=options)
    assert report.read_bytes().startswith(b"\x89PNG")
    assert report.stat().st_size > 10_000


def test_report_into_a_missing_folder_is_refused_at_start(tmp_path: Path) -> None:
    """Not after hours of training."""
    monitor = CadenceMonitor(report=tmp_path / "missing" / "lanes.png")
    with pytest.raises(FileNotFoundError, match="`report` must be in an existing folder"):
        fit(1, val_size=8, callbacks=[monitor])


def test_logging_interval_below_one_is_refused() -> None:
    """The message names the parameter."""
    with pytest.raises(ValueError, match="`every_n_averages` must be >= 1, got 0"):
        CadenceMonitor(every_n_averages=0)
