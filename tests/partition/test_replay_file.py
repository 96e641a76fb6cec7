"""Records of fingerprints as files."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightning_elche.partition.errors import ReplayFormatError
from lightning_elche.partition.replay import ReplayFingerprint
from lightning_elche.partition.replay_file import (
    ReplaySegment,
    SegmentWriter,
    env_differences,
    join_segments,
    read_segment,
)

ENTRIES = (
    ReplayFingerprint(8, 0x81D23FD7003C2305, (1, (1 << 64) - 1), sync_index=1),
    ReplayFingerprint(16, 7, (2, 3), sync_index=2),
)
SEGMENT = ReplaySegment(
    segment="b", parent="a", scope="model", env={"torch": "2.9", "world": 2}, entries=ENTRIES
)
HEADER = (
    b'{"format": "elche-replay-1", "algorithm": "rml-1", "scope": "model", "segment": "b", '
    b'"parent": "a", "env": {"torch": "2.9", "world": 2}}\n'
)
LINE_8 = (
    b'{"sync_index": 1, "step": 8, "value": "0x81d23fd7003c2305", '
    b'"lanes": ["0x0000000000000001", "0xffffffffffffffff"]}\n'
)


def written(segment: ReplaySegment) -> list[bytes]:
    """Return the lines of a segment."""
    lines: list[bytes] = []
    SegmentWriter(segment, lines.append)
    return lines


def test_segment_is_lines_of_json() -> None:
    """The first line says what the segment is, and each entry has its line."""
    assert written(SEGMENT)[:2] == [HEADER, LINE_8]
    assert len(written(SEGMENT)) == 3


def test_lines_are_written_one_by_one() -> None:
    """Each entry is handed on when it is taken in."""
    lines: list[bytes] = []
    writer = SegmentWriter(replace(SEGMENT, entries=()), lines.append)
    assert lines == [HEADER]
    writer.append(ENTRIES[0])
    assert lines == [HEADER, LINE_8]


def test_what_is_written_is_read() -> None:
    """A segment that went through a file is the same."""
    assert read_segment(b"".join(written(SEGMENT))) == SEGMENT


@given(cut=st.integers(1, 400))
def test_torn_last_line_is_dropped(cut: int) -> None:
    """Wherever a file ends behind its first line, all whole lines are read."""
    data = b"".join(written(SEGMENT))
    end = max(len(HEADER), len(data) - cut)
    read = read_segment(data[:end])
    assert read == replace(SEGMENT, entries=ENTRIES[: data[:end].count(b"\n") - 1])


@pytest.mark.parametrize("data", [b"", HEADER[:-1], HEADER[:20]])
def test_file_without_first_line_is_refused(data: bytes) -> None:
    """What a record is of must be known."""
    with pytest.raises(ReplayFormatError) as caught:
        read_segment(data)
    assert caught.value.line == 1


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"format": "elche-replay-2"}, "`format` must be 'elche-replay-1', got 'elche-replay-2'"),
        ({"algorithm": "rml-2"}, "`algorithm` must be 'rml-1', got 'rml-2'"),
        ({"segment": 3}, "`scope`, `segment` and `parent` must be text"),
        ({"parent": 3}, "`scope`, `segment` and `parent` must be text"),
        ({"env": []}, "`env` an object"),
        ({"more": 1}, "it must be an object of algorithm, env, format"),
    ],
)
def test_first_line_of_another_kind_is_refused(change: dict[str, Any], text: str) -> None:
    """Only records of this format and algorithm are read."""
    data = json.dumps(json.loads(HEADER) | change).encode() + b"\n" + LINE_8
    with pytest.raises(ReplayFormatError) as caught:
        read_segment(data)
    assert text in str(caught.value)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"step": -1}, "`step` must be an integer >= 0, got -1"),
        ({"step": True}, "`step` must be an integer >= 0, got True"),
        ({"sync_index": 1.0}, "`sync_index` must be an integer >= 0, got 1.0"),
        ({"value": 7}, "a value must be 0x and 16 digits, got 7"),
        ({"value": "0x7"}, "a value must be 0x and 16 digits, got '0x7'"),
        ({"value": "-0x000000000000007"}, "a value must be 0x and 16 digits"),
        ({"value": "0x" + 17 * "f"}, "a value must be 0x and 16 digits"),
        ({"value": "zz"}, "a value must be 0x and 16 digits, got 'zz'"),
        ({"lanes": ["0x0000000000000001"]}, "`lanes` must be two values"),
        ({"lanes": "0x"}, "`lanes` must be two values"),
        ({"lane": 0}, "it must be an object of lanes, step, sync_index, value"),
        ({"step": 7}, "step 7 comes after step 8"),
    ],
)
def test_other_bad_line_is_refused_by_its_number(change: dict[str, Any], text: str) -> None:
    """A line that is not the torn last one must be an entry."""
    bad = json.dumps(json.loads(LINE_8) | change).encode() + b"\n"
    with pytest.raises(ReplayFormatError) as caught:
        read_segment(HEADER + LINE_8 + bad)
    assert caught.value.line == 3
    assert text in str(caught.value)


@pytest.mark.parametrize("bad", [b"\n", b"{\n", b"[]\n", b"\xff\n", b"[" * 100_000 + b"\n"])
def test_line_that_is_no_object_is_refused_by_its_number(bad: bytes) -> None:
    """A line of no JSON object is refused, be it the last one or not."""
    for data in (HEADER + bad, HEADER + bad + LINE_8):
        with pytest.raises(ReplayFormatError) as caught:
            read_segment(data)
        assert caught.value.line == 2


def segment(name: str, parent: str | None, *steps: int) -> ReplaySegment:
    """Return a segment whose values tell whose they are."""
    entries = tuple(ReplayFingerprint(step, ord(name)) for step in steps)
    return ReplaySegment(segment=name, parent=parent, entries=entries)


def joined(last: str, *segments: ReplaySegment) -> list[tuple[int, str]]:
    """Return step and segment of each entry of a record."""
    entries = join_segments({one.segment: one for one in segments}, last)
    return [(entry.step, chr(entry.value)) for entry in entries]


def test_resumed_run_has_one_record() -> None:
    """What was repeated after a resume stands instead of what was before."""
    parts = segment("a", None, 1, 2, 3, 4), segment("b", "a", 3, 4, 5), segment("c", "b", 6)
    assert joined("c", *parts) == [(1, "a"), (2, "a"), (3, "b"), (4, "b"), (5, "b"), (6, "c")]
    assert joined("a", *parts) == [(1, "a"), (2, "a"), (3, "a"), (4, "a")]


def test_segment_without_entries_has_those_of_its_parents() -> None:
    """A resume that recorded nothing adds nothing and takes nothing away."""
    parts = segment("a", None, 1, 2, 3), segment("b", "a"), segment("c", "b", 2)
    assert joined("b", *parts) == [(1, "a"), (2, "a"), (3, "a")]
    assert joined("c", *parts) == [(1, "a"), (2, "c")]


@pytest.mark.parametrize(
    ("segments", "text"),
    [
        ([segment("a", "z", 1)], "segment 'z' is missing"),
        ([segment("a", "b", 2), segment("b", "a", 1)], "segment 'a' is its own ancestor"),
    ],
)
def test_record_with_a_bad_chain_is_refused(segments: list[ReplaySegment], text: str) -> None:
    """Each parent is there, and is no descendant."""
    with pytest.raises(ReplayFormatError, match=text):
        joined("a", *segments)


def test_environments_are_compared_entry_by_entry() -> None:
    """Entries that differ, or that only one of them has, are listed with both values."""
    expected = {"torch": "2.9", "world": 2, "cuda": None, "threads": 1}
    actual = {"torch": "2.9", "world": 4, "precision": "32", "cuda": None}
    assert env_differences(expected, actual) == {
        "world": (2, 4),
        "threads": (1, None),
        "precision": (None, "32"),
    }
