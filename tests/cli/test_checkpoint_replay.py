"""The verb `replay` of `elche checkpoint`."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from lightning_elche.cli.main import main
from lightning_elche.partition.replay import ReplayFingerprint
from lightning_elche.partition.replay_file import ReplaySegment, SegmentWriter
from lightning_elche.partition.replay_lanes import (
    LanesPoint,
    LanesRecord,
    LanesWriter,
    Moment,
    NamedLanes,
)
from tests.partition.states import make_snapshot, make_store


def write(
    root: Path,
    values: dict[int, int],
    *,
    segment: str = "segment-0000",
    parent: str | None = None,
    scope: str = "full",
    threads: int = 1,
) -> Path:
    """Write a segment whose fingerprint of each step is given."""
    path = root / "replay" / f"{segment}.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    entries = tuple(
        ReplayFingerprint(step, value, sync_index=step // 8) for step, value in values.items()
    )
    env = {"threads": threads}
    with path.open("wb") as file:
        record = ReplaySegment(
            segment=segment, parent=parent, scope=scope, env=env, entries=entries
        )
        SegmentWriter(record, file.write)
    return path


def replay(expected: Path, actual: Path, *arguments: str) -> int:
    return main(["checkpoint", "replay", str(expected), str(actual), *arguments])


@pytest.fixture
def expected(tmp_path: Path) -> Path:
    """The root of a run with three fingerprints."""
    write(tmp_path / "expected", {8: 1, 16: 2, 24: 3})
    return tmp_path / "expected"


@pytest.fixture
def actual(tmp_path: Path) -> Path:
    return tmp_path / "actual"


def test_equal_records_are_exit_code_zero(
    expected: Path, actual: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Files and roots alike."""
    file = write(actual, {8: 1, 16: 2, 24: 3})
    assert [replay(expected, actual), replay(expected, file)] == [0, 0]
    assert capsys.readouterr().out == "EQUAL  3 fingerprints\n" * 2


@pytest.mark.parametrize(
    ("values", "code", "line"),
    [
        (
            {8: 1, 16: 0xAB, 24: 4},
            1,
            "DIFFERS  replay diverged at step 16: expected 0x0000000000000002, "
            "got 0x00000000000000ab (averaging event 2)",
        ),
        (
            {8: 1, 17: 2},
            1,
            "DIFFERS  replay expected step 16 but runtime produced step 17 (averaging event 2)",
        ),
        (
            {8: 1, 16: 2, 24: 3, 32: 4},
            1,
            "DIFFERS  replay has no expected fingerprint for step 32 (averaging event 4)",
        ),
        ({8: 1}, 4, "EARLY END  replay ended with 2 expected fingerprints left"),
    ],
    ids=["value", "step", "longer", "shorter"],
)
def test_first_difference_is_told(
    expected: Path,
    actual: Path,
    values: dict[int, int],
    code: int,
    line: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """As a run that verifies would tell it; an early end leaves the question open."""
    write(actual, values)
    assert replay(expected, actual) == code
    assert capsys.readouterr().out == f"{line}\n"


@pytest.mark.parametrize(("value", "code"), [(3, 4), (9, 1)])
def test_environments_come_first(
    expected: Path, actual: Path, value: int, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit code 4 as long as the values are equal all the same."""
    write(actual, {8: 1, 16: 2, 24: value}, threads=2)
    assert replay(expected, actual) == code
    out = capsys.readouterr().out
    assert out.startswith("DIFFERS  environment threads: expected 1, got 2\n")


def test_values_of_different_scopes_are_not_compared(expected: Path, actual: Path) -> None:
    """They are fingerprints of different things."""
    write(actual, {8: 9}, scope="model")
    assert replay(expected, actual) == 4


def test_segments_of_a_resumed_run_are_joined(expected: Path, actual: Path) -> None:
    """What was done again stands for what was done before; by the root or the last file."""
    write(actual, {8: 1, 16: 7, 24: 7})
    file = write(actual, {16: 2, 24: 3}, segment="segment-0001", parent="segment-0000")
    assert [replay(expected, actual), replay(expected, file)] == [0, 0]
    assert replay(expected, actual / "replay" / "segment-0000.jsonl") == 1


def test_segment_alone_is_compared_from_its_first_step(
    expected: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """If those that it goes on from are not there, which is said."""
    file = write(tmp_path / "alone", {16: 2, 24: 3}, segment="s1", parent="../s0")
    assert replay(expected, file) == 0
    captured = capsys.readouterr()
    assert captured.out == "EQUAL  2 fingerprints\n"
    assert "goes on from segment '../s0', which is not there" in captured.err


def test_latest_segment_of_a_root_is_its_record(expected: Path, actual: Path) -> None:
    """If a run was resumed twice from the same place; other files are not looked at."""
    write(actual, {8: 1, 16: 7})
    for segment, value in (("segment-0001", 9), ("segment-0002", 3)):
        write(actual, {16: 2, 24: value}, segment=segment, parent="segment-0000")
    (actual / "replay" / "segment-0003-lanes.rank0.jsonl").touch()
    assert replay(expected, actual) == 0
    assert replay(expected, actual / "replay" / "segment-0001.jsonl") == 1


def test_checkpoints_to_compare_are_named(
    expected: Path, actual: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The first that both runs have from the divergence on."""
    write(actual, {8: 1, 16: 7, 24: 7})
    for root, steps in ((expected, (8, 16, 24)), (actual, (8, 24))):
        store = make_store(root)
        for step in steps:
            store.save(make_snapshot(step))
    assert replay(expected, actual) == 1
    assert capsys.readouterr().err == (
        f"elche: see: elche checkpoint diff {expected / 'step-00000024'} "
        f"{actual / 'step-00000024'}\n"
    )


def write_lanes(root: Path, rank: int, moment: Moment, lanes: dict[str, int]) -> Path:
    """Write what a rank has recorded of its tensors at averaging event 2."""
    path = root / "replay" / f"segment-0000-lanes.rank{rank}.jsonl"
    tensors = [NamedLanes(name, 1, (lane, 0)) for name, lane in lanes.items()]
    with path.open("wb") as file:
        record = LanesRecord(segment="segment-0000", rank=rank, world_size=2)
        writer = LanesWriter(record, file.write)
        writer.append(LanesPoint.of(moment, tensors, step=16, sync_index=2))
    return path


def test_first_tensor_is_told_where_lanes_are_recorded(
    expected: Path, actual: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What a rank hands in comes before what all have afterwards."""
    write(actual, {8: 1, 16: 7, 24: 7})
    for root, lane in ((expected, 5), (actual, 6)):
        write_lanes(root, 0, "after", {"model/a": lane, "model/b": lane})
        write_lanes(root, 1, "before", {"model/a": 4, "model/b": lane})
    assert replay(expected, actual) == 1
    assert capsys.readouterr().out.splitlines()[1] == (
        "DIFFERS  the first tensor is 'model/b' of rank 1 (before averaging event 2, step 16)"
    )


def test_lanes_that_cannot_be_read_do_not_hide_the_divergence(
    expected: Path, actual: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """They are left out, which is said."""
    write(actual, {8: 1, 16: 7, 24: 7})
    write_lanes(expected, 0, "after", {"model/a": 1})
    write_lanes(actual, 0, "after", {"model/a": 2}).write_bytes(b"{}\n")
    assert replay(expected, actual) == 1
    captured = capsys.readouterr()
    assert captured.out.startswith("DIFFERS  replay diverged at step 16")
    assert "the first tensor that differs cannot be told: replay line 1" in captured.err


@pytest.mark.parametrize(("key", "value"), [("format", "elche-replay-2"), ("algorithm", "rml-2")])
def test_other_format_is_exit_code_four(
    expected: Path, tmp_path: Path, key: str, value: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also if its first line has more than this release knows."""
    path = write(tmp_path / "newer", {})
    header = {**json.loads(path.read_bytes()), key: value, "more": 1}
    path.write_text(json.dumps(header) + "\n", encoding="utf-8")
    assert replay(expected, path) == 4
    assert str(path) in capsys.readouterr().err


@pytest.mark.parametrize(
    "data",
    [b"", b"\0" * 99 + b"\n", b"\xff\n", b"[]\n", b"{}\n{}\n", b"[" * 100_000 + b"\n"],
    ids=["empty", "NUL", "not UTF-8", "list", "no keys", "nested"],
)
def test_file_that_is_no_record_is_exit_code_three(
    expected: Path, tmp_path: Path, data: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    """With its path and line."""
    path = tmp_path / "broken.jsonl"
    path.write_bytes(data)
    assert replay(expected, path) == 3
    assert f"elche: {path}: replay line 1 is not readable" in capsys.readouterr().err


@pytest.mark.timeout(20)
def test_pipe_is_not_waited_for(expected: Path, tmp_path: Path) -> None:
    """Neither as a record nor in a root."""
    os.mkfifo(tmp_path / "pipe.jsonl")
    os.mkfifo(expected / "replay" / "segment-0001.jsonl")
    other = write(tmp_path / "other", {8: 1})
    assert replay(other, tmp_path / "pipe.jsonl") == 3
    assert replay(expected, other) == 3


def test_root_without_a_record_is_exit_code_three(expected: Path, tmp_path: Path) -> None:
    """Nothing was recorded, or the path is wrong."""
    assert replay(expected, tmp_path / "nowhere") == 3
    assert replay(expected, tmp_path) == 3


def test_segments_that_go_on_from_each_other_are_refused(
    expected: Path, actual: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """There is no first one."""
    for own, parent in (("segment-0000", "segment-0001"), ("segment-0001", "segment-0000")):
        write(actual, {8: 1}, segment=own, parent=parent)
    assert [
        replay(expected, actual),
        replay(expected, actual / "replay" / "segment-0000.jsonl"),
    ] == [3, 3]
    assert "is its own ancestor" in capsys.readouterr().err


def test_file_with_the_name_of_another_segment_is_refused(expected: Path, actual: Path) -> None:
    """It may be a copy that was edited."""
    write(actual, {8: 1}).rename(actual / "replay" / "segment-0001.jsonl")
    assert replay(expected, actual) == 3
