"""Profiles are written to files of their own, and what goes wrong there stays there."""

from __future__ import annotations

import csv
import gc
import json
import logging
import re
import resource
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.profilers import PyTorchProfiler
from torch.profiler import schedule
from torch.utils.data import DataLoader

from lightning_elche.callbacks.profiler import ElcheProfiler, is_complete, save_as_new
from lightning_elche.testing import run_ranks
from tests.ranks import Numbered, Recorder, fit, make_loader, make_trainer

NAME = r"trace-(fit|test)-\d{8}T\d{6}_\d{6}Z-r\d-p\d+-\d{3}\.(pt\.trace\.json|summary\.txt)"
EVENTS = "lightning_elche.events"
BATCHES = 10


@pytest.fixture
def no_folder(tmp_path: Path) -> Path:
    """A path at which no folder can be made, for root neither."""
    (tmp_path / "file").touch()
    return tmp_path / "file" / "profiles"


def fit_one(profiler: PyTorchProfiler, **options: Any) -> Recorder:
    quick = {"size": 4 * BATCHES, "delays_ms": (0.0,), "val_size": 8, "limit_val_batches": 0}
    _, model = fit(1, strategy="auto", profiler=profiler, **quick, **options)
    return model


def test_each_run_writes_files_of_its_own(tmp_path: Path) -> None:
    """Two fits leave two traces and two summaries, which name their run; each is whole."""
    profiler = ElcheProfiler(tmp_path)
    for _ in range(2):
        fit_one(profiler)
    names = sorted(path.name for path in tmp_path.iterdir())
    assert all(re.fullmatch(NAME, name) for name in names), names
    traces, summaries = sorted(tmp_path.glob("*.json")), sorted(tmp_path.glob("*.txt"))
    assert (len(traces), len(summaries), len(names)) == (2, 2, 4)
    assert all(json.loads(trace.read_text())["traceEvents"] for trace in traces)
    assert "aten::linear" in summaries[1].read_text()
    assert profiler.stats() == {"traces": 2.0, "export_failures": 0.0}


def test_counts_are_logged(tmp_path: Path) -> None:
    """To every logger, when a trace is written."""
    logger = CSVLogger(tmp_path, version=0)
    fit_one(ElcheProfiler(tmp_path / "profiles"), logger=logger, log_every_n_steps=1)
    with (Path(logger.log_dir) / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    logged = [(row["profiler/traces"], row["profiler/export_failures"]) for row in rows]
    assert ("1.0", "0.0") in logged


def test_failed_export_does_not_end_the_run(
    no_folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Every batch is trained once; one warning, and an event for each failure."""
    profiler = ElcheProfiler(no_folder)
    with (
        caplog.at_level(logging.INFO, EVENTS),
        pytest.warns(UserWarning, match="could not be written to .*NotADirectory") as caught,
    ):
        model = fit_one(profiler)
    events = [json.loads(record.message) for record in caplog.records if record.name == EVENTS]
    assert sorted(model.ids[0]) == [*range(4 * BATCHES)]
    assert sum("could not be written" in str(one.message) for one in caught) == 1
    assert [(event["event"], event["file"], event["failures"]) for event in events] == [
        ("export_failed", "pt.trace.json", 1),
        ("export_failed", "summary.txt", 2),
    ]


@pytest.mark.filterwarnings("ignore:A profile could not be written")
def test_nothing_is_written_after_too_many_failures(no_folder: Path) -> None:
    """Even where it could be again."""
    profiler = ElcheProfiler(no_folder, max_failures=2)
    fit_one(profiler)
    no_folder.parent.unlink()
    fit_one(profiler)
    assert profiler.stats() == {"traces": 0.0, "export_failures": 2.0}
    assert not no_folder.exists()


@pytest.mark.filterwarnings("ignore:A profile could not be written")
def test_success_begins_the_count_of_failures_anew(no_folder: Path) -> None:
    """Only failures in a row stop it."""
    profiler = ElcheProfiler(no_folder, max_failures=3)
    fit_one(profiler)
    no_folder.parent.unlink()
    fit_one(profiler)
    assert profiler.stats() == {"traces": 1.0, "export_failures": 2.0}
    assert profiler._failures_in_a_row == 0


class Stumbles(Recorder):
    """Raises in the step at whose end the trace is written."""

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        if batch_idx == 4:
            raise KeyError("from the body")
        return super().training_step(batch, batch_idx)


@pytest.mark.filterwarnings("ignore:A profile could not be written")
def test_error_of_the_body_keeps_its_type(no_folder: Path) -> None:
    """Where Lightning's own profiler replaces it by that of the export."""
    ours, stock = ElcheProfiler(no_folder), PyTorchProfiler(no_folder, "trace")
    with pytest.raises(RuntimeError, match="Can't create directory"):
        fit_one(stock, model=Stumbles((0.0,)))
    with pytest.raises(KeyError, match="from the body"):
        fit_one(ours, model=Stumbles((0.0,)))
    assert ours.stats()["export_failures"] == 1.0
    for profiler in (ours, stock):
        profiler.teardown("fit")


def test_run_that_the_schedule_never_records_ends_well(tmp_path: Path) -> None:
    """Although there are no events to summarize."""
    late = schedule(wait=100, warmup=1, active=1)
    profiler = ElcheProfiler(tmp_path, schedule=late)
    fit_one(profiler)
    with pytest.raises(KeyError):
        fit_one(profiler, model=Stumbles((0.0,)))
    profiler.teardown("fit")
    assert (profiler.stats()["export_failures"], list(tmp_path.iterdir())) == (0.0, [])


def test_profiler_goes_on_when_the_model_of_its_last_run_is_gone(tmp_path: Path) -> None:
    """Nothing of that run is asked for."""
    profiler = ElcheProfiler(tmp_path)
    for _ in range(2):
        fit_one(profiler)
        gc.collect()
    assert profiler.stats() == {"traces": 2.0, "export_failures": 0.0}


def test_stage_is_part_of_the_name(tmp_path: Path) -> None:
    """And a fit's files stay when the model is tested."""

    class Tested(Recorder):
        def test_step(self, batch: Any, batch_idx: int) -> None:
            self.validation_step(batch, batch_idx)

    profiler = ElcheProfiler(tmp_path, filename="a")
    trainer = make_trainer(1, strategy="auto", profiler=profiler)
    trainer.test(Tested(), DataLoader(Numbered(4 * BATCHES), batch_size=4), verbose=False)
    assert len(list(tmp_path.glob("a-test-*"))) == 2


def fit_with_little_room(folder: str) -> tuple[list[int], dict[str, float], int]:
    """Let rank 1 write no file beyond 1000 bytes while it trains, as if its disk were full."""
    profiler, model = ElcheProfiler(folder), Recorder((2.0, 4.0))
    trainer = make_trainer(2, profiler=profiler)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        if trainer.global_rank == 1:
            resource.setrlimit(resource.RLIMIT_FSIZE, (1000, resource.RLIM_INFINITY))
        trainer.fit(model, make_loader(160))
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    told = sum("A profile could not be written" in str(one.message) for one in caught)
    return model.ids[0], profiler.stats(), told


@pytest.mark.slow
def test_full_disk_of_one_rank_stays_its_own_matter(tmp_path: Path) -> None:
    """Each batch is trained once, the other rank has its files, nothing half-written is left."""
    ranks = run_ranks(fit_with_little_room, world_size=2, folder=str(tmp_path))
    ids = [index for rank in ranks for index in rank.value[0]]
    assert sorted(ids) == [*range(160)]
    assert [rank.value[1:] for rank in ranks] == [
        ({"traces": 1.0, "export_failures": 0.0}, 0),
        ({"traces": 0.0, "export_failures": 2.0}, 1),
    ]
    names = [path.name for path in tmp_path.iterdir()]
    assert [bool(re.search("-r0-", name)) for name in names] == [True, True], names


def test_file_that_exists_is_not_touched(tmp_path: Path) -> None:
    """Nor is anything left beside it."""
    file = tmp_path / "a.txt"
    file.write_text("old")
    with pytest.raises(FileExistsError):
        save_as_new(file, lambda path: path.write_text("new") and None)
    assert [path.read_text() for path in tmp_path.iterdir()] == ["old"]


def test_file_is_there_only_when_it_is_whole(tmp_path: Path) -> None:
    """An error while it is written leaves nothing."""

    def write(path: Path) -> None:
        path.write_text("half")
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        save_as_new(tmp_path / "a.txt", write)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("last", ["traceName", "another key"])
def test_trace_that_was_cut_off_is_recognized(last: str) -> None:
    """Wherever it was cut, braces in its strings included."""
    trace = json.dumps({"events": [{"name": 'a "quoted" } brace'}, {"args": {}}], last: "{"})
    assert is_complete(trace.encode())
    assert not any(is_complete(trace[:end].encode()) for end in range(len(trace)))


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("max_failures", 0, "`max_failures` must be >= 1, got 0"),
        ("filename", "a/b", "`filename` must be a name without folders, got 'a/b'"),
        ("filename", "", "`filename` must be a name without folders, got ''"),
    ],
)
def test_options_out_of_range_are_refused(option: str, value: object, message: str) -> None:
    """The message names the parameter."""
    with pytest.raises(ValueError, match=message):
        ElcheProfiler(**{option: value})
