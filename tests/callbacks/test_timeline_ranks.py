"""The event logs of real ranks say what these have spent their time on."""

from __future__ import annotations

import json
import os
import time
from importlib import resources
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import torch
from lightning.pytorch import Callback
from torch.utils.data import DataLoader

from lightning_elche import CadenceConfig, CadenceMonitor, ElCheStrategy
from lightning_elche.callbacks.run_events import emit
from lightning_elche.distributed import agreement
from lightning_elche.testing import run_ranks
from lightning_elche.timeline.aligned import RankTimeline, RunTimeline, load
from tests.ranks import Numbered, Recorder, fit, make_trainer

pytestmark = pytest.mark.slow

STALL_S = 0.2
STALLING = 14  # the sample, as rank 1 counts them


class Stalling(Numbered):
    """Takes long to find a sample, as slow storage does, and writes down how long."""

    def __init__(self, size: int, note: Path) -> None:
        super().__init__(size)
        self.note = note
        self.found = 0

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        self.found += 1
        if self.found == STALLING and os.environ.get("RANK", "1") == "1":
            begun = time.perf_counter()
            time.sleep(STALL_S)
            self.note.write_text(str(time.perf_counter() - begun))
        return super().__getitem__(index)


class Emits(Callback):
    """Says something at the end of validation."""

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        if trainer.is_global_zero:
            emit("plateau", epoch=trainer.current_epoch)


def fit_in_lockstep(folder: str) -> None:
    """Ranks of which the second is slow, and all wait for it at each step."""
    agreement.MAX_POLL_S = 0.001  # else the slow rank waits until the other one notices it
    monitor = CadenceMonitor(detail_steps=1, report="html")
    trainer = make_trainer(
        2,
        default_root_dir=folder,
        callbacks=[monitor, Emits()],
        strategy=ElCheStrategy(policy="sync", backend="cpu", timeout_s=30.0),
        enable_checkpointing=True,
    )
    train = DataLoader(Stalling(48, Path(folder) / "stall"), batch_size=4)
    val = DataLoader(Numbered(8), batch_size=4)
    trainer.fit(Recorder((5.0, 400.0)), train, val)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of such a run."""
    root = tmp_path_factory.mktemp("lockstep")
    run_ranks(fit_in_lockstep, world_size=2, folder=str(root))
    return root


@pytest.fixture(scope="module")
def run(folder: Path) -> RunTimeline:
    """What its ranks have recorded."""
    return load(folder)


def spans_of(rank: RankTimeline, kind: str) -> list[float]:
    """Return the seconds of each."""
    return [(span.end_ns - span.start_ns) / 1e9 for span in rank.spans if span.kind == kind]


def test_spans_cover_what_a_rank_did(run: RunTimeline) -> None:
    """At most two percent of its time are unexplained."""
    assert run.notes == []
    for rank in run.ranks:
        assert rank.times.totals["other"] <= 0.02 * sum(rank.times.totals.values())


def test_stall_of_the_storage_is_found(folder: Path, run: RunTimeline) -> None:
    """On the rank that had it, to ten milliseconds of what it really took."""
    stalled_s = float((folder / "stall").read_text())
    stalls = [[s for s in spans_of(rank, "input") if s >= STALL_S] for rank in run.ranks]
    assert stalls == [[], [pytest.approx(stalled_s, abs=0.01)]]


def test_stall_is_no_part_of_its_window(run: RunTimeline) -> None:
    """It has a span of its own; the parts of a window still make up the rest of it."""
    stalled = run.ranks[1]
    windows = [span for span in stalled.spans if span.kind == "window"]
    inner_s = sum(spans_of(stalled, "input") + spans_of(stalled, "checkpoint"))
    inner_s += sum(spans_of(stalled, "validation"))
    parts = ("compute_ns", "input_ns", "throttle_ns", "wait_ns", "hooks_ns")
    assert sum(window.a["input_ns"] for window in windows) / 1e9 < STALL_S
    told_s = sum(window.a[part] for window in windows for part in parts) / 1e9
    assert told_s == pytest.approx(sum(spans_of(stalled, "window")) - inner_s, abs=0.01)


def test_averages_and_clocks_go_together(run: RunTimeline) -> None:
    """Each exchange notes what the clock showed, so that ranks can be put on one."""
    for rank in run.ranks:
        averages = [record.a["index"] for _, record in rank.of_kind("average")]
        ends = [clock.a["average"] for clock in rank.log.clocks() if "average" in clock.a]
        assert averages == ends == list(range(len(averages)))
        assert len(averages) > 3
        assert len(rank.of_kind("rank")) == len(averages)


def test_slow_rank_is_named(run: RunTimeline) -> None:
    """The others wait for it, and it for nobody."""
    stragglers = [verdict.rank for verdict in run.verdicts() if verdict.kind == "straggler"]
    assert stragglers == [1]


def test_validation_checkpoint_and_what_was_emitted_are_recorded(run: RunTimeline) -> None:
    """On rank zero, once."""
    first = run.ranks[0]
    assert len(spans_of(first, "validation")) == 1
    assert len(spans_of(first, "checkpoint")) >= 1
    alerts = [record.a for _, record in first.of_kind("alert")]
    assert alerts == [{"what": "plateau", "epoch": 0}]


def test_lines_of_real_ranks_are_valid(folder: Path) -> None:
    """Each matches the schema."""
    schema = resources.files("lightning_elche.contracts") / "schemas" / "event-v1.schema.json"
    validator = jsonschema.Draft7Validator(json.loads(schema.read_text("utf-8")))
    lines = [
        json.loads(line)
        for path in (folder / "elche" / "events").iterdir()
        for line in path.read_bytes().splitlines()
    ]
    assert len(lines) > 50
    assert [error.message for line in lines for error in validator.iter_errors(line)] == []


def test_page_is_in_the_folder_of_the_run(folder: Path) -> None:
    """With the verdict on the slow rank."""
    page = (folder / "elche" / "report.html").read_text(encoding="utf-8")
    assert "is the straggler" in page


def fit_until_killed(folder: str) -> None:
    monitor = CadenceMonitor()
    model = Killed((2.0, 2.0))
    strategy = ElCheStrategy(timeout_s=4.0, cadence=CadenceConfig(anchor=2, max_anchor=2))
    fit(2, default_root_dir=folder, callbacks=[monitor], model=model, strategy=strategy)


class Killed(Recorder):
    """Its second rank dies in the tenth step."""

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        if self.global_rank == 1 and batch_idx == 10:
            os.kill(os.getpid(), 9)
        return super().training_step(batch, batch_idx)


def test_ranks_that_end_badly_leave_logs_that_can_be_read(tmp_path: Path) -> None:
    """The one that was killed has no end, the other one has, and both have averaged before."""
    run_ranks(fit_until_killed, world_size=2, folder=str(tmp_path), check=False)
    run = load(tmp_path)
    assert [rank.log.is_closed for rank in run.ranks] == [True, False]
    assert all(rank.of_kind("average") for rank in run.ranks)


def test_single_device_has_windows_without_averages(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Its time is explained all the same, and that there are no averages is said once."""
    with caplog.at_level("INFO", logger="lightning.pytorch.utilities.rank_zero"):
        fit(
            1,
            size=40,
            val_size=4,
            delays_ms=(2.0,),
            default_root_dir=tmp_path,
            callbacks=[CadenceMonitor()],
        )
    run = load(tmp_path)
    totals = run.ranks[0].times.totals
    assert totals["compute"] > 0.5 * sum(totals.values())
    assert [verdict.kind for verdict in run.verdicts() if verdict.kind == "unexplained"] == []
    assert caplog.text.count("this fit has no averaging events") == 1


def test_other_strategies_are_approximate(tmp_path: Path) -> None:
    """Waiting for data is the gap between hooks, and the log says so."""
    monitor = CadenceMonitor(stall_ms=10_000.0)
    trainer = make_trainer(1, strategy="auto", default_root_dir=tmp_path, callbacks=[monitor])
    train = DataLoader(Stalling(80, tmp_path / "stall"), batch_size=4)
    trainer.fit(Recorder((1.0,)), train, DataLoader(Numbered(4), batch_size=4))
    run = load(tmp_path)
    assert run.ranks[0].times.totals["input"] / 1e9 >= STALL_S
    assert run.notes == ["Rank 0: waiting for data is approximate, by the gaps between hooks."]
