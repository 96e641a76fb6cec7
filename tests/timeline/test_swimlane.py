"""The picture of a run."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from lightning_elche.timeline.aligned import load
from lightning_elche.timeline.causes import Slice
from lightning_elche.timeline.swimlane import Lane, draw_lanes, draw_run
from tests.timeline.recorded import S, Share, record_run

pytest.importorskip("matplotlib")


def pixels_of(path: Path) -> set[tuple[int, int, int]]:
    """Return the colours of a picture."""
    from matplotlib.image import imread

    rows = (imread(path)[..., :3] * 255).round().astype(int)
    return {tuple(pixel) for row in rows[::3] for pixel in row[::3].tolist()}


def test_picture_shows_the_causes_in_their_colours(tmp_path: Path) -> None:
    """Computing is blue, waiting for data orange; nobody was throttled."""
    shares = (Share(compute=500, input=400), Share())
    path = tmp_path / "run.png"
    draw_run(load(record_run(tmp_path, shares=shares)), path)
    colors = pixels_of(path)
    assert {(0x3B, 0x7D, 0xD8), (0xE8, 0x59, 0x0C)} <= colors
    assert (0xAE, 0x8F, 0xDC) not in colors


def test_each_rank_is_named_with_its_part_of_the_samples(tmp_path: Path) -> None:
    """Of the whole run, whatever its speed was in the last window."""
    shares = (Share(samples_per_s=60.0), Share(samples_per_s=20.0))
    draw_run(load(record_run(tmp_path, shares=shares)), tmp_path / "run.svg")
    picture = (tmp_path / "run.svg").read_text(encoding="utf-8")
    assert "<!-- 75 % of samples -->" in picture
    assert "<!-- 25 % of samples -->" in picture


@pytest.mark.parametrize("seconds", [1, 2])
def test_short_run_is_drawn(seconds: int, tmp_path: Path) -> None:
    """Also one whose middle cannot be shown."""
    draw_run(load(record_run(tmp_path, seconds=seconds)), tmp_path / "run.png")
    assert (tmp_path / "run.png").stat().st_size > 5_000


def test_lanes_without_averages_are_drawn(tmp_path: Path) -> None:
    """Such as those of a single device."""
    lane = Lane(label="rank 0", slices=[Slice(0.0, S, {"compute": S})])
    draw_lanes([lane], tmp_path / "run.png", title="a run")
    assert (tmp_path / "run.png").read_bytes().startswith(b"\x89PNG")


def test_picture_of_nothing_is_refused(tmp_path: Path) -> None:
    """Without slices there is nothing to draw, and no file is left behind."""
    with pytest.raises(ValueError, match="`lanes` must not be empty"):
        draw_lanes([Lane(label="rank 0", slices=[])], tmp_path / "run.png", title="nothing")
    assert list(tmp_path.iterdir()) == []


def test_import_of_the_drawing_module_does_not_load_matplotlib() -> None:
    """Only who draws a picture needs matplotlib."""
    code = "import sys, lightning_elche.timeline.swimlane; print('matplotlib' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout.strip()) == (0, "False")


def test_picture_without_matplotlib_names_the_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that nobody has to know which package brings what is missing."""
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ModuleNotFoundError, match=r"Install `lightning-elche\[plot\]`"):
        draw_lanes(
            [Lane(label="rank 0", slices=[Slice(0.0, S, {"compute": S})])],
            tmp_path / "run.png",
            title="",
        )
