"""Files that are whole after a crash."""

from __future__ import annotations

from pathlib import Path

import pytest

from lightning_elche.contracts.runfolder.durable import sync_folder, write_durably


def test_file_is_replaced_and_nothing_else_is_left(tmp_path: Path) -> None:
    """The folder is made, the content is the new one, and no temporary file remains."""
    path = tmp_path / "new" / "file.json"
    write_durably(path, b"old")
    write_durably(path, b"new")
    assert [(one.name, one.read_bytes()) for one in path.parent.iterdir()] == [
        ("file.json", b"new")
    ]


def test_old_file_survives_a_failed_write(tmp_path: Path) -> None:
    """If the new content cannot be written the old one is still there."""
    path = tmp_path / "file.json"
    write_durably(path, b"old")
    (tmp_path / "file.json.tmp").mkdir()  # stands in the way of the temporary file
    with pytest.raises(IsADirectoryError):
        write_durably(path, b"new")
    assert path.read_bytes() == b"old"


def test_folder_that_is_none_is_refused(tmp_path: Path) -> None:
    """Syncing the names in a file is an error, not a silent success."""
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError):
        sync_folder(tmp_path / "file")
