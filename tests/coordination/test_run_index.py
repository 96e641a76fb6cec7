"""The list of runs of this machine."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from lightning_elche.coordination.run_index import add_run, is_alive, list_runs, remove_run

ADD = """
import sys
from pathlib import Path
from lightning_elche.coordination.run_index import add_run
add_run(Path(sys.argv[1]), sys.argv[2], started_at=3.0)
"""


def add_dead(coord_dir: Path, folder: str) -> None:
    """Enter a run of a process that has ended since."""
    subprocess.run([sys.executable, "-c", ADD, str(coord_dir), folder], check=True, timeout=60)


def edit(path: Path, **changed: object) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changed}))


def folders(coord_dir: Path) -> list[str]:
    return [entry.run_folder for entry in list_runs(coord_dir)]


def test_runs_are_listed_in_the_order_of_their_starts(tmp_path: Path) -> None:
    """Each until it is removed, in a folder for this user only."""
    path = add_run(tmp_path / "coord", "/runs/b", started_at=2.0)
    add_run(tmp_path / "coord", "/runs/a", started_at=1.0)
    assert folders(tmp_path / "coord") == ["/runs/a", "/runs/b"]
    assert path.parent.stat().st_mode & 0o777 == 0o700
    remove_run(tmp_path / "coord", "/runs/a")
    assert folders(tmp_path / "coord") == ["/runs/b"]


def test_run_of_another_process_is_not_removed(tmp_path: Path) -> None:
    """It is shown as one whose process is gone, until the next run starts."""
    add_dead(tmp_path, "/runs/dead")
    remove_run(tmp_path, "/runs/dead")
    assert [is_alive(entry) for entry in list_runs(tmp_path)] == [False]
    add_run(tmp_path, "/runs/a", started_at=4.0)
    assert [(entry.run_folder, is_alive(entry)) for entry in list_runs(tmp_path)] == [
        ("/runs/a", True)
    ]


def test_runs_of_other_machines_in_the_same_folder_are_left_alone(tmp_path: Path) -> None:
    """As in a home directory that several have."""
    path = add_run(tmp_path, "/runs/far", started_at=1.0)
    edit(path, host="far away")
    add_run(tmp_path, "/runs/a", started_at=2.0)
    assert folders(tmp_path) == ["/runs/a"]
    assert path.exists()


def test_process_of_a_former_boot_is_gone(tmp_path: Path) -> None:
    """Although its number is that of another one now."""
    path = add_run(tmp_path, "/runs/a", started_at=1.0)
    edit(path, process={**json.loads(path.read_text())["process"], "boot": "former"})
    assert [is_alive(entry) for entry in list_runs(tmp_path)] == [False]


@pytest.mark.parametrize(
    "content", [b"", b"[]", b"{", b'{"run_folder": "x"}', b'{"run_folder": "x", "process": 3}']
)
def test_file_that_is_no_run_is_passed_over(tmp_path: Path, content: bytes) -> None:
    """As it may be anybody's."""
    add_run(tmp_path, "/runs/a", started_at=1.0)
    (tmp_path / "runs" / "other.json").write_bytes(content)
    assert folders(tmp_path) == ["/runs/a"]


def test_no_folder_has_no_runs(tmp_path: Path) -> None:
    """Nothing is made for the sake of looking."""
    assert folders(tmp_path / "none") == []
    assert not (tmp_path / "none").exists()
