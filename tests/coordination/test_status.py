"""Tests of the file that says how a run is."""

from __future__ import annotations

import json
import math
import threading
from pathlib import Path

import pytest

from lightning_elche.coordination.status import StatusWriter, status_bytes
from tests.coordination.calls import eventually


def read(path: Path) -> dict[str, object]:
    found: dict[str, object] = json.loads(path.read_bytes())
    return found


def test_file_is_never_seen_in_part(tmp_path: Path) -> None:
    """A reader that does not stop reading gets nothing but whole versions, in their order."""
    path, written = tmp_path / "status.json", [0]

    def status() -> dict[str, object]:
        written[0] += 1
        return {"version": written[0], "filler": "x" * 200_000, "end": written[0]}

    writer = StatusWriter(path, status, period_s=1e-4)
    writer.start()
    seen = [0]

    def sees_more() -> bool:
        found = read(path)
        assert found["version"] == found["end"]
        assert isinstance(found["version"], int)
        assert found["version"] >= seen[-1]
        seen.append(found["version"])
        return len(set(seen)) >= 100

    assert eventually(sees_more)
    writer.close()


def test_last_version_is_of_the_end(tmp_path: Path) -> None:
    """However long the period is; nothing but the file is left behind."""
    path, state = tmp_path / "status.json", ["RUNNING"]
    writer = StatusWriter(path, lambda: {"state": state[0]}, period_s=3600.0)
    writer.start()
    assert read(path) == {"state": "RUNNING"}
    state[0] = "STOPPED"
    writer.close()
    assert read(path) == {"state": "STOPPED"}
    assert [one.name for one in tmp_path.iterdir()] == ["status.json"]


def test_status_that_cannot_be_told_is_told_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The writer goes on, and writes again when it can."""
    answers = iter([{"n": 1}, OSError("x"), OSError("y"), {"n": 2}])

    def status() -> dict[str, object]:
        answer = next(answers)
        if isinstance(answer, OSError):
            raise answer
        return dict(answer)

    writer = StatusWriter(tmp_path / "s", status, period_s=3600.0)
    writer.start()
    writer.write()
    writer.write()
    writer.close()
    assert read(tmp_path / "s") == {"n": 2}
    assert len(caplog.records) == 1


def test_folder_that_cannot_be_written_to_is_an_error_at_once(tmp_path: Path) -> None:
    """At the begin of a run rather than never."""
    writer = StatusWriter(tmp_path / "none" / "s", dict, period_s=1.0)
    with pytest.raises(FileNotFoundError):
        writer.start()


def test_each_version_is_followed_by_what_feeds_on_it(tmp_path: Path) -> None:
    """In the thread of the writer."""
    fed: list[str] = []
    writer = StatusWriter(
        tmp_path / "s",
        dict,
        period_s=1e-3,
        after=lambda: fed.append(threading.current_thread().name),
    )
    writer.start()
    assert eventually(lambda: len(fed) >= 2)
    writer.close()
    assert fed[0] == "elche-status"


def test_numbers_that_json_does_not_know_are_null() -> None:
    """As deep as they may be; other programs read the file."""
    status = {"loss": math.nan, "parts": [{"eta": math.inf}], "path": Path("/a"), 1: True}
    expected = {"loss": None, "parts": [{"eta": None}], "path": "/a", "1": True}
    assert json.loads(status_bytes(status)) == expected  # type: ignore[arg-type]
