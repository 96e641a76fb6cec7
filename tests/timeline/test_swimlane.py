"""The picture of a run."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from lightning_elche.timeline.spans import Span
from lightning_elche.timeline.swimlane import draw_swimlane

pytest.importorskip("matplotlib")


def spans_of(num_windows: int) -> list[Span]:
    """Return windows of one second on two ranks."""
    return [
        Span(rank, kind, window + start_s, duration_s)
        for window in range(num_windows)
        for rank in range(2)
        for kind, start_s, duration_s in (
            ("compute", 0.0, 0.75),
            ("wait", 0.75, 0.125),
            ("average", 0.875, 0.125),
        )
    ]


@pytest.mark.parametrize("num_windows", [1, 2, 40])
def test_picture_is_a_png_of_some_size(num_windows: int, tmp_path: Path) -> None:
    """A run of any length gives an image file that is not blank."""
    path = tmp_path / "run.png"
    draw_swimlane(spans_of(num_windows), path, shares=(0.8, 0.2), title="a run")
    assert path.read_bytes().startswith(b"\x89PNG")
    assert path.stat().st_size > 5_000


def test_picture_of_nothing_is_refused(tmp_path: Path) -> None:
    """Without spans there is nothing to draw, and no file is left behind."""
    with pytest.raises(ValueError, match="`spans` must not be empty"):
        draw_swimlane([], tmp_path / "run.png", shares=(0.5, 0.5), title="nothing")
    assert list(tmp_path.iterdir()) == []


def test_import_of_the_drawing_module_does_not_load_matplotlib() -> None:
    """Only who draws a picture needs matplotlib."""
    code = "import sys, lightning_elche.timeline.swimlane; print('matplotlib' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout.strip()) == (0, "False")
