"""Files by which a run is told what to do."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lightning_elche.coordination.stopping.commands import (
    read_command,
    remove_command,
    write_command,
)


def test_command_says_who_and_why(tmp_path: Path) -> None:
    """What was written is read again, from JSON."""
    path = write_command(tmp_path / "new", "HALT", at=5.0, by="ann", reason="full disk")
    found = read_command(tmp_path / "new", "HALT")
    assert json.loads(path.read_text()) == {"at": 5.0, "by": "ann", "reason": "full disk"}
    assert str(found) == "HALT by ann: full disk"


@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b"[1]", b'{"at": "x", "by": 3}', b"{"])
def test_file_counts_whatever_is_in_it(content: bytes, tmp_path: Path) -> None:
    """`touch HALT` halts."""
    (tmp_path / "HALT").write_bytes(content)
    found = read_command(tmp_path, "HALT")
    assert found is not None
    assert found.at == 0.0


def test_folder_counts_too(tmp_path: Path) -> None:
    """Whatever has the name."""
    (tmp_path / "PAUSE").mkdir()
    assert str(read_command(tmp_path, "PAUSE")) == "PAUSE"


def test_absent_command_is_none(tmp_path: Path) -> None:
    """Nor is anything there to remove."""
    assert read_command(tmp_path / "nowhere", "PAUSE") is None
    assert not remove_command(tmp_path, "PAUSE")


def test_command_that_was_given_anew_stays(tmp_path: Path) -> None:
    """Only the one that was served is removed."""
    write_command(tmp_path, "CHECKPOINT", at=1.0, by="a")
    served = read_command(tmp_path, "CHECKPOINT")
    write_command(tmp_path, "CHECKPOINT", at=2.0, by="b")
    assert not remove_command(tmp_path, "CHECKPOINT", served)
    assert remove_command(tmp_path, "CHECKPOINT", read_command(tmp_path, "CHECKPOINT"))
    assert list(tmp_path.iterdir()) == []


def test_unknown_command_is_refused(tmp_path: Path) -> None:
    """Before anything is written."""
    with pytest.raises(ValueError, match="`name` must be one of HALT, PAUSE, CHECKPOINT, got 'X'"):
        write_command(tmp_path, "X", at=0.0, by="me")
