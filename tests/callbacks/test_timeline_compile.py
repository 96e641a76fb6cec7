"""Compiling is told apart from computing."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader

from lightning_elche import CadenceMonitor, ElCheStrategy
from lightning_elche.callbacks.timeline_compile import CompileWatch
from lightning_elche.timeline.aligned import load
from tests.ranks import Numbered, Recorder, make_trainer
from tests.timeline.recorded import Clock

PLACE = "torch._dynamo.callback"


class Handler:
    """Stands for the one of torch."""

    def __init__(self) -> None:
        self.start: list[Any] = []
        self.end: list[Any] = []
        self.register_start_callback, self.register_end_callback = (
            self.start.append,
            self.end.append,
        )
        self.remove_start_callback, self.remove_end_callback = self.start.remove, self.end.remove

    def run(self, when: str, *arguments: object) -> None:
        for call in getattr(self, when):
            call(*arguments)


@pytest.fixture
def handler(monkeypatch: pytest.MonkeyPatch) -> Handler:
    """The one that is found."""
    handler = Handler()
    monkeypatch.setitem(sys.modules, PLACE, SimpleNamespace(callback_handler=handler))
    return handler


def watch() -> tuple[CompileWatch, Clock, list[tuple[int, int]]]:
    told: list[tuple[int, int]] = []
    clock = Clock()
    return CompileWatch(lambda *span: told.append(span), clock), clock, told


def test_compilation_within_another_is_a_part_of_it(handler: Handler) -> None:
    """What is told begins with the outer one and ends with it; torch passes arguments or none."""
    watching, clock, told = watch()
    watching.attach()
    for when, now_ns in (("start", 10), ("start", 20), ("end", 30), ("end", 50)):
        clock.now_ns = now_ns
        handler.run(when, *(("arguments",) if now_ns > 20 else ()))
    assert told == [(10, 40)]


def test_attached_twice_listens_once_and_closed_no_longer(handler: Handler) -> None:
    """Nothing is left with torch."""
    watching, _, _ = watch()
    for _ in range(2):
        watching.attach()
    assert (len(handler.start), len(handler.end)) == (1, 1)
    for _ in range(2):
        watching.close()
    assert (handler.start, handler.end) == ([], [])


def test_watch_outlives_a_reset_of_the_compiler(handler: Handler) -> None:
    """That has thrown the callbacks away."""
    watching, _, _ = watch()
    watching.attach()
    handler.start.clear()
    watching.close()
    assert handler.end == []


def test_process_that_cannot_compile_imports_no_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    """It takes seconds."""
    monkeypatch.delitem(sys.modules, PLACE, raising=False)
    watching, _, _ = watch()
    watching.attach()
    assert PLACE not in sys.modules


@pytest.mark.slow
def test_compiling_in_a_run_has_spans_and_is_no_computing(tmp_path: Path) -> None:
    """The first step compiles, and the smaller last batch again; a window holds the rest."""
    torch.compiler.reset()
    trainer = make_trainer(
        1, strategy=ElCheStrategy(), default_root_dir=tmp_path, callbacks=[CadenceMonitor()]
    )
    model = Recorder()
    model.layers = torch.compile(model.layers, backend="aot_eager")  # type: ignore[assignment]  # a module, too
    trainer.fit(model, DataLoader(Numbered(18), batch_size=4), DataLoader(Numbered(4)))
    [rank] = load(tmp_path).ranks
    compiles = [span for span in rank.spans if span.kind == "compile"]
    windows = [span for span in rank.spans if span.kind == "window"]
    compile_ns = sum(span.end_ns - span.start_ns for span in compiles)
    assert len(compiles) >= 2
    assert compile_ns > 1e8
    assert sum(w.a["compute_ns"] for w in windows) < 0.5 * compile_ns
    assert rank.times.totals["startup"] >= compile_ns
