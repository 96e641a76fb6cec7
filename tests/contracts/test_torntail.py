"""The last line of a log whose writer was killed."""

from __future__ import annotations

from pathlib import Path

import pytest

from lightning_elche.contracts.runfolder import torntail
from lightning_elche.contracts.runfolder.torntail import cut_torn_tail, torn_tail


@pytest.mark.parametrize(
    ("content", "kept", "tail"),
    [
        (b"", b"", None),
        (b'{"a":1}\n', b'{"a":1}\n', None),
        (b'{"a":1}\n{"b', b'{"a":1}\n', b'{"b'),
        (b'{"a', b"", b'{"a'),
        (b'{"a":1}\n\x00\x00', b'{"a":1}\n', b"\x00\x00"),
        (b'{"a":1}\n{"b":2}', b'{"a":1}\n{"b":2}\n', None),  # only its end is missing
        (b'{"a":1}\n12', b'{"a":1}\n', b"12"),  # a number may be a part of a longer one
        (b"[" * 100_000, b"", b"[" * 100_000),  # beyond what the parser can nest
    ],
)
def test_log_ends_with_a_line_end_afterwards(
    tmp_path: Path, content: bytes, kept: bytes, tail: bytes | None
) -> None:
    """Only a line that was not written to its end is cut off, and it is returned."""
    path = tmp_path / "log"
    path.write_bytes(content)
    assert (cut_torn_tail(path), path.read_bytes()) == (tail, kept)


def test_missing_log_has_no_tail(tmp_path: Path) -> None:
    """A log that is not there is not made."""
    assert cut_torn_tail(tmp_path / "log") is None
    assert not (tmp_path / "log").exists()


@pytest.mark.parametrize("size", [6, 7, 8, 9, 100])
def test_long_tail_is_found_across_blocks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    """The line end before the tail may stand anywhere in a block."""
    monkeypatch.setattr(torntail, "BLOCK_BYTES", 4)
    path = tmp_path / "log"
    path.write_bytes(b"{}\n" + b"x" * size)
    assert torn_tail(path) == b"x" * size
