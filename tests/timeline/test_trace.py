"""A trace is valid, nests, and its arrows have two ends."""

from __future__ import annotations

import gzip
import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import torch

from lightning_elche.timeline import aligned, trace
from lightning_elche.timeline.aligned import load
from lightning_elche.timeline.trace import trace_events, write_trace
from lightning_elche.timeline.trace_merge import read_profile
from tests.timeline.recorded import MS, Clock, S, Share, open_log, record_run, record_second

NUMBER = {"type": "integer"}
SCHEMA: dict[str, Any] = {
    "type": "object",
    "required": ["name", "ph", "pid", "tid"],
    "properties": {"pid": NUMBER, "tid": NUMBER, "ts": NUMBER, "args": {"type": "object"}},
    "oneOf": [
        {"properties": {"ph": {"const": "M"}}, "required": ["args"]},
        {
            "properties": {"ph": {"const": "X"}, "dur": {"type": "integer", "minimum": 0}},
            "required": ["ts", "dur"],
        },
        {
            "properties": {"ph": {"const": "i"}, "s": {"enum": ["g", "p", "t"]}},
            "required": ["ts", "s"],
        },
        {"properties": {"ph": {"const": "C"}}, "required": ["ts", "args"]},
        {"properties": {"ph": {"const": "s"}}, "required": ["ts", "id", "cat"]},
        {
            "properties": {"ph": {"const": "f"}, "bp": {"const": "e"}},
            "required": ["ts", "id", "cat", "bp"],
        },
    ],
}


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """Two ranks that average six times."""
    return record_run(tmp_path, shares=(Share(wait=100, compute=800), Share(wait=0, input=30)))


def events_of(run: Path, **options: Any) -> list[dict[str, Any]]:
    return list(trace_events(load(run), **options))


def test_every_event_is_valid(run: Path) -> None:
    """Each phase has the fields that viewers need."""
    validator = jsonschema.Draft7Validator(SCHEMA)
    events = events_of(run)
    assert [error.message for event in events for error in validator.iter_errors(event)] == []
    assert {event["ph"] for event in events} == set("MXiCsf")


def test_slices_of_a_track_nest(run: Path) -> None:
    """None reaches out of the one that it begins in."""
    tracks = defaultdict(list)
    for event in events_of(run):
        if event["ph"] == "X":
            tracks[event["pid"], event["tid"]].append((event["ts"], event["ts"] + event["dur"]))
    assert set(tracks) == {(0, 0), (0, 2)}
    for slices in tracks.values():
        stack: list[int] = []
        for begin, end in slices:
            while stack and stack[-1] <= begin:
                stack.pop()
            assert not stack or end <= stack[-1]
            stack.append(end)


def test_parts_of_a_window_lie_end_to_end(run: Path) -> None:
    """Compute, input and hooks of the first window of rank 1, marked as sums."""
    window = [e for e in events_of(run) if e["ph"] == "X" and e["tid"] == 2][1:5]
    assert [(e["name"], e["ts"] - 500_000, e["dur"]) for e in window] == [
        ("window", 0, 970_000),
        ("compute", 0, 900_000),
        ("input", 900_000, 30_000),
        ("hooks", 930_000, 40_000),
    ]
    assert [e["args"].get("aggregated") for e in window] == [None, True, True, True]


def test_arrows_go_from_each_exchange_to_that_of_rank_zero(run: Path) -> None:
    """Both ends are within slices of the exchange, with the id of event and rank."""
    events = events_of(run)
    starts = {e["id"]: e for e in events if e["ph"] == "s"}
    ends = {e["id"]: e for e in events if e["ph"] == "f"}
    assert list(starts) == list(ends) == [1, 3, 5, 7, 9, 11]
    slices = [e for e in events if e["name"] == "average_transfer"]
    for arrow in (*starts.values(), *ends.values()):
        assert any(
            s["tid"] == arrow["tid"] and s["ts"] <= arrow["ts"] < s["ts"] + s["dur"] for s in slices
        )


def test_change_of_the_anchor_is_told_to_all(run: Path) -> None:
    """An instant over all tracks says from what to what, and why."""
    told = [(e["name"], e["s"]) for e in events_of(run) if e["ph"] == "i"]
    assert told == [("anchor 8 -> 9 (overhead 0.140)", "g")]


def test_tracks_have_names_and_an_order(run: Path) -> None:
    """A host is a process; each rank has a track, and one for what goes on beside it."""
    names = {(e["name"], e["tid"]): e["args"].get("name") for e in events_of(run) if e["ph"] == "M"}
    assert names["process_name", 0] == "box"
    assert names["thread_name", 2] == "rank 1 (cpu on box)"
    assert names["thread_name", 3] == "rank 1 background"


def test_counters_are_written_where_they_change(run: Path) -> None:
    """A share that stays the same is one event."""
    values = [(e["name"], e["args"]["value"]) for e in events_of(run) if e["ph"] == "C"]
    assert values.count(("rank 0 share", 0.5)) == 1
    assert [value for name, value in values if name == "anchor"] == [8, 9]


def test_machine_has_counters(tmp_path: Path) -> None:
    """Of CPU, memory and disk what is known, and of each GPU."""
    clock = Clock(S)
    log = open_log(tmp_path, 0, 1, clock)
    log.span("startup", S, S)
    log.counter("host", cpu=None, memory=40.0, disk=60.0, gpu=[90, 80], vram=[5, 6])
    clock.now_ns += S
    log.close()
    values = {e["name"]: e["args"]["value"] for e in events_of(tmp_path) if e["ph"] == "C"}
    gpus = {"gpu 0 %": 90, "gpu 1 %": 80, "vram 0 bytes": 5, "vram 1 bytes": 6}
    assert values == {"memory %": 40.0, "disk %": 60.0, **gpus}


def test_uploads_have_a_track_of_their_own(tmp_path: Path) -> None:
    """They take none of a rank's time."""
    clock = Clock(S)
    log = open_log(tmp_path, 0, 1, clock)
    log.span("window", S, 4 * S, index=0, compute_ns=4 * S)
    log.span("upload", 2 * S, S, path="a.ckpt")
    clock.now_ns += 4 * S
    log.close()
    drawn = [(e["name"], e["tid"], e["ts"]) for e in events_of(tmp_path) if e["ph"] == "X"]
    assert drawn == [("window", 0, 0), ("compute", 0, 0), ("upload", 1, 1_000_000)]


def test_single_steps_are_drawn_on_request(tmp_path: Path) -> None:
    """In the windows that were asked for, instead of their sum."""
    clock = Clock(S)
    log = open_log(tmp_path, 0, 1, clock)
    for index in range(3):
        steps = [(clock.now_ns + 100 * MS, 40 * MS), (clock.now_ns + 200 * MS, 50 * MS)]
        record_second(log, clock, index, Share(), steps=steps)
    log.close()
    drawn = [e for e in events_of(tmp_path, detail=(1, 2)) if e["name"] in ("step", "compute")]
    assert [(e["name"], e["ts"], e["dur"]) for e in drawn] == [
        ("compute", 0, 900_000),
        ("step", 1_100_000, 40_000),
        ("step", 1_200_000, 50_000),
        ("compute", 2_000_000, 900_000),
    ]


def test_steps_that_were_not_recorded_are_refused(run: Path, tmp_path: Path) -> None:
    """The message says how to record them, and what was there before is left as it is."""
    path = tmp_path / "trace.json.gz"
    path.write_text("before")
    with pytest.raises(ValueError, match=r"CadenceMonitor\(detail_steps=...\)"):
        write_trace(load(run), path, detail=(0, 2))
    assert path.read_text() == "before"
    assert [other.name for other in tmp_path.glob("trace*")] == ["trace.json.gz"]


def test_very_long_run_is_drawn_in_columns(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The columns hold as much of each cause as the windows do."""
    whole = sum(e["dur"] for e in events_of(run) if e["name"] == "average_wait")
    monkeypatch.setattr(aligned, "MAX_SPANS", 24)
    monkeypatch.setattr(trace, "MAX_SPANS", 24)
    events = events_of(run)
    waits = [e["dur"] for e in events if e["name"] == "average_wait"]
    assert sum(waits) == pytest.approx(whole, abs=10) == 600_000
    assert len([e for e in events if e["ph"] == "X"]) <= 24


def test_trace_is_written_as_one_object(run: Path, tmp_path: Path) -> None:
    """Compressed if its name says so."""
    timeline = load(run)
    write_trace(timeline, tmp_path / "trace.json")
    write_trace(timeline, tmp_path / "trace.json.gz")
    plain = json.loads((tmp_path / "trace.json").read_bytes())
    assert json.loads(gzip.decompress((tmp_path / "trace.json.gz").read_bytes())) == plain
    assert plain["otherData"]["run"] == "r1"


def profiled(path: Path) -> None:
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        torch.ones(8).sum()
    profile.export_chrome_trace(str(path))


def test_trace_of_torch_profiler_is_placed_by_its_wall_clock(run: Path, tmp_path: Path) -> None:
    """It lies at the moment at which it was taken, on tracks of its own."""
    path = tmp_path / "profile.json"
    profiled(path)
    base_ns = json.loads(path.read_bytes())["baseTimeNanoseconds"]
    own = {
        event["name"]: event["ts"]
        for event in json.loads(path.read_bytes())["traceEvents"]
        if "ts" in event
    }
    merged = {event["name"]: event for event in read_profile(path, load(run))}
    begin_of_run_us = (S + 86_400 * S) / 1000  # on the wall clock
    at_us = own["aten::sum"] + base_ns / 1000 - begin_of_run_us
    assert merged["aten::sum"]["ts"] == pytest.approx(at_us, abs=1.0)
    assert merged["aten::sum"]["pid"] >= 1_000_000


def test_file_that_is_no_trace_is_refused(run: Path, tmp_path: Path) -> None:
    """The message names it."""
    path = tmp_path / "profile.json"
    path.write_text("{}")
    with pytest.raises(ValueError, match="`merge` must be a trace with `traceEvents`"):
        read_profile(path, load(run))
