"""A log as a file: what is opened, and how it is cut into lines."""

from __future__ import annotations

import gzip
import io
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightning_elche.contracts.steplog import file as steplog_file
from lightning_elche.contracts.steplog.file import UnreadableLog, open_regular, read_lines


def test_folder_is_refused(tmp_path: Path) -> None:
    """A folder is no log, and the error says that it is one."""
    with pytest.raises(UnreadableLog, match="is a folder"):
        open_regular(tmp_path)


def test_pipe_is_refused_at_once(tmp_path: Path) -> None:
    """Opening a pipe would wait for a writer, which may never come."""
    os.mkfifo(tmp_path / "train.jsonl")
    with pytest.raises(UnreadableLog, match="is a pipe"):
        open_regular(tmp_path / "train.jsonl")


def test_pipe_that_takes_the_place_of_a_file_is_refused_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody has to wait even if the pipe comes after the first look."""
    pipe, file = tmp_path / "train.jsonl", tmp_path / "file"
    os.mkfifo(pipe)
    file.touch()
    status = os.stat(file)
    monkeypatch.setattr(os, "stat", lambda _: status)
    with pytest.raises(UnreadableLog, match="is a pipe"):
        open_regular(pipe)


def test_device_is_refused() -> None:
    """Reading a device may never end."""
    with pytest.raises(UnreadableLog, match="is a device"):
        open_regular(Path(os.devnull))


@pytest.mark.parametrize(
    ("begin", "name"),
    [
        (gzip.compress(b"{}\n"), "gzip"),
        (b"\x28\xb5\x2f\xfd\x00", "zstd"),
        (b"BZh9", "bzip2"),
        (b"\xfd7zXZ\x00", "xz"),
    ],
    ids=["gzip", "zstd", "bzip2", "xz"],
)
def test_compressed_log_is_refused_whatever_it_is_called(
    tmp_path: Path, begin: bytes, name: str
) -> None:
    """The error says what to do."""
    log = tmp_path / "train.jsonl"
    log.write_bytes(begin)
    with pytest.raises(UnreadableLog, match=rf"compressed \({name}\): decompress it first"):
        open_regular(log)


def test_unreadable_log_is_an_os_error() -> None:
    """So that whoever handles files that cannot be read handles this."""
    assert issubclass(UnreadableLog, OSError)


def test_regular_file_is_opened_at_its_begin(tmp_path: Path) -> None:
    """Looking for compression has moved nothing."""
    log = tmp_path / "train.jsonl"
    log.write_bytes(b"{}\n{}\n")
    with open_regular(log) as file:
        assert file.read() == b"{}\n{}\n"


@given(
    text=st.text("ab\n", max_size=60).map(str.encode),
    block=st.integers(min_value=1, max_value=20),
    more=st.integers(min_value=0, max_value=20),
)
def test_lines_are_those_of_the_file_for_any_sizes(text: bytes, block: int, more: int) -> None:
    """Each line comes once and at its place; one that is too long comes alone, and marked."""
    longest = block + more
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(steplog_file, "BLOCK_BYTES", block)
        patch.setattr(steplog_file, "MAX_LINE_BYTES", longest)
        found = list(read_lines(io.BytesIO(text), size=len(text)))
    offset, expected = 0, {}
    for line in text.splitlines(keepends=True):
        expected[offset] = (line, len(line.rstrip(b"\n")) > longest)
        offset += len(line)
    assert _by_offset(found) == {
        at: (b"" if is_long else line, is_long) for at, (line, is_long) in expected.items()
    }


def _by_offset(
    found: list[steplog_file.Lines],
) -> dict[int, tuple[bytes, bool]]:
    """Return single lines by offset, without the text of those that are too long."""
    lines: dict[int, tuple[bytes, bool]] = {}
    for some in found:
        if some.is_too_long:
            lines[some.offset] = (b"", True)
            continue
        offset = some.offset
        for line in some.text.splitlines(keepends=True):
            lines[offset] = (line, False)
            offset += len(line)
    return lines


def test_lines_end_at_the_size_that_is_asked_for() -> None:
    """A file may have grown since its size was taken."""
    assert [one.text for one in read_lines(io.BytesIO(b"a\nbcd\n"), size=4)] == [b"a\n", b"bc"]


def test_lines_end_with_a_file_that_was_cut() -> None:
    """A file may have become shorter since its size was taken."""
    assert [one.text for one in read_lines(io.BytesIO(b"a\n"), size=9)] == [b"a\n"]


def test_long_line_is_not_kept_in_memory() -> None:
    """Of a line of 5 MiB no more than the begin and a block are held."""
    (line,) = read_lines(io.BytesIO(b"x" * (5 << 20)), size=5 << 20)
    assert (len(line.text), line.is_too_long) == ((1 << 20) + 1, True)
