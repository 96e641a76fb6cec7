"""The monitor logs from shared data, shows two fields, and writes reports."""

from __future__ import annotations

import csv
import re
import sys
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
    monitor = CadenceMonitor(events=False)
    fit(2, delays_ms=(2.0, 8.0), enable_progress_bar=True, callbacks=[bar, monitor])
    return bar.shown, bar.fields


def test_progress_bar_counts_the_batches_of_all_ranks() -> None:
    """The count never falls and reaches the total; anchor and idle time stand beside it."""
    shown, fields = run_ranks(fit_with_bar, world_size=2)[0].value
    counts = [count for count, _ in shown]
    assert {total for _, total in shown} == {50}
    assert counts == sorted(counts)
    assert counts[-1] == 50
    assert fields == {"anchor", "idle"}


def fit_with_logger(folder: str) -> None:
    logger = CSVLogger(folder, version=0, flush_logs_every_n_steps=1)
    monitor = CadenceMonitor(per_rank=True, report=f"{folder}/lanes.png")
    fit(2, size=400, delays_ms=(2.0, 8.0), logger=logger, callbacks=[monitor], log_every_n_steps=5)


@pytest.fixture(scope="module")
def logged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run of two ranks, the second of which is four times slower."""
    folder = tmp_path_factory.mktemp("logged")
    run_ranks(fit_with_logger, world_size=2, folder=str(folder))
    return folder


def rows_of(folder: Path) -> list[dict[str, str]]:
    with (folder / "lightning_logs" / "version_0" / "metrics.csv").open() as file:
        return [row for row in csv.DictReader(file) if row.get("elche/anchor")]


def test_metrics_are_logged_once_per_event(logged: Path) -> None:
    """Every event is a row, at the step count of all ranks."""
    rows = rows_of(logged)
    steps = [int(row["step"]) for row in rows]
    assert steps == sorted(set(steps))
    assert steps[-1] == 100
    assert float(rows[-1]["elche/share"]) > 0.6


def test_metrics_of_each_rank_are_logged_on_request(logged: Path) -> None:
    """`per_rank` adds share, step count and step time of every rank."""
    row = rows_of(logged)[-1]
    assert float(row["elche/rank0/share"]) + float(row["elche/rank1/share"]) == pytest.approx(1.0)
    assert float(row["elche/rank1/batch_ms"]) > float(row["elche/rank0/batch_ms"])


def test_waiting_for_data_is_logged(logged: Path) -> None:
    """A part of the time of each rank, and so of all, and no batch was skipped."""
    row = rows_of(logged)[-1]
    names = ("elche/rank0/input_ratio", "elche/input_ratio", "elche/rank1/input_ratio")
    assert all(0.0 < float(row[name]) < 0.9 for name in names)
    assert 0.0 <= float(row["elche/rank0/wait_ratio"]) < 1.0
    assert float(row["elche/skipped"]) == 0.0


def test_report_is_drawn_at_the_end(logged: Path) -> None:
    """The picture is a PNG file of some size."""
    report = logged / "lanes.png"
    assert report.read_bytes().startswith(b"\x89PNG")
    assert report.stat().st_size > 10_000


def test_event_logs_lie_beside_those_of_the_logger(logged: Path) -> None:
    """One for each rank."""
    events = logged / "lightning_logs" / "version_0" / "elche" / "events"
    assert sorted(path.name for path in events.iterdir()) == ["rank0.jsonl", "rank1.jsonl"]


def test_report_into_a_missing_folder_is_refused_at_start(tmp_path: Path) -> None:
    """Not after hours of training."""
    monitor = CadenceMonitor(report=tmp_path / "missing" / "lanes.png")
    with pytest.raises(FileNotFoundError, match="`report` must be in an existing folder"):
        fit(1, val_size=8, callbacks=[monitor], default_root_dir=tmp_path)


def test_picture_without_matplotlib_is_refused_before_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And not after hours of it; the error names the option and the extra."""
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monitor = CadenceMonitor(report=tmp_path / "run.png")
    with pytest.raises(ModuleNotFoundError, match=r"`report` \(.*run.png\) .*elche\[plot\]"):
        fit(1, val_size=8, callbacks=[monitor], default_root_dir=tmp_path)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"every_n_averages": 0}, "`every_n_averages` must be >= 1, got 0"),
        ({"detail_steps": -1}, "`detail_steps` must be >= 0, got -1"),
        ({"stall_ms": 0.0}, "`stall_ms` must be > 0, got 0.0"),
        (
            {"report": "lanes.gif"},
            "`report` must end in .html or .png, or be 'html', got lanes.gif",
        ),
        ({"report": "html", "events": False}, "`events` must be True for a `report`"),
    ],
)
def test_bad_options_are_refused(options: dict[str, Any], words: str) -> None:
    """The message names the parameter."""
    with pytest.raises(ValueError, match=re.escape(words)):
        CadenceMonitor(**options)
