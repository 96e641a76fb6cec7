"""A page that shows, without a network, which rank lost time and why."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from lightning_elche.timeline.aligned import load
from lightning_elche.timeline.causes import Slice
from lightning_elche.timeline.charts import line_chart
from lightning_elche.timeline.lanes import coded, lanes_of
from lightning_elche.timeline.palette import LOOKS
from lightning_elche.timeline.report import write_page
from tests.timeline.recorded import Clock, S, Share, open_log, record_run

CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)


def page_of(folder: Path, **options: object) -> str:
    path = folder / "page.html"
    write_page(load(record_run(folder, **options)), path)  # type: ignore[arg-type]  # as given
    return path.read_text(encoding="utf-8")


def test_page_says_which_rank_lost_time_and_why(tmp_path: Path) -> None:
    """The verdict stands at the top, with the rank and its share."""
    page = page_of(tmp_path, shares=(Share(), Share(compute=500, input=400)))
    assert "<strong>Rank 1 (cpu on box) is input-bound</strong>: 40.0% of its time" in page
    assert f'<li><i style="background:{LOOKS["input"].color}"></i><strong>Rank 1' in page


def test_page_loads_nothing_from_elsewhere(tmp_path: Path) -> None:
    """It has no address of anything."""
    assert re.findall(r"(?:src|href)=|https?://|@import|url\(", page_of(tmp_path)) == []


def test_page_has_a_part_for_each_question(tmp_path: Path) -> None:
    """From the verdicts to the configuration."""
    parts = re.findall(r"<h2>(.*?)</h2>", page_of(tmp_path))
    assert [part.split(":")[0] for part in parts] == [
        "Verdicts",
        "What each rank's time went into",
        "Over time",
        "Idle time by cause, in seconds",
        "Share of the samples",
        "Samples per second",
        "Anchor",
        "Decisions and alerts",
        "Machines",
        "Configuration",
    ]


def test_what_all_ranks_tell_is_one_row(tmp_path: Path) -> None:
    """A second later it is another; what repeats every epoch is not listed."""
    for rank in range(3):
        clock = Clock(S)
        log = open_log(tmp_path, rank, 3, clock)
        for seconds in (1, 9):
            clock.now_ns += seconds * S + rank
            log.instant("stop_requested" if rank else "alert", cause="SIGTERM")
            log.instant("stop_agreed", cause="SIGTERM")
            log.instant("validation_end", epoch=0)
        log.close()
    write_page(load(tmp_path), tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    rows = re.findall(r"<td>([\d.]+ s)</td><td>(.*?)</td><td>(.*?)</td>", page)
    assert [row for row in rows if row[0] == "1.0 s"] == [
        ("1.0 s", "rank 0", "alert"),
        ("1.0 s", "all ranks", "stop_agreed"),
        ("1.0 s", "ranks 1, 2", "stop_requested"),
    ]
    assert len(rows) == 6


def test_words_of_a_run_cannot_become_markup(tmp_path: Path) -> None:
    """What a user has put into names and messages is shown as it is."""
    clock = Clock(S)
    log = open_log(tmp_path, 0, 1, clock, host="</script><b>", device="<i>")
    clock.now_ns += S
    log.instant("alert", what="<u>")
    log.close()
    write_page(load(tmp_path), tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert not {"<b>", "<i>", "<u>"} & set(re.findall(r"<[biu]>", page))
    assert page.count("</script>") == 2


def test_column_names_two_causes_and_tenths_of_the_second() -> None:
    """Seven tenths of computing, three of waiting for data; then nothing more."""
    slices = [Slice(0.0, 10.0, {"compute": 7.0, "input": 3.0})]
    assert coded(slices, 0.0, 20.0, 2) == "ab3..0"


def test_long_run_has_its_first_and_last_minutes_too(tmp_path: Path) -> None:
    """Beside the whole."""
    lanes = lanes_of(load(record_run(tmp_path, seconds=700)))
    assert [(lane["begin_s"], lane["end_s"]) for lane in lanes] == [
        (0.0, 700.5),
        (0.0, 600.0),
        (100.5, 700.5),
    ]
    assert {len(row) for lane in lanes for row in lane["rows"]} == {3 * 2000}


def test_chart_of_many_points_is_thinned() -> None:
    """Its first and its last point stay."""
    points = [(float(second), float(second)) for second in range(10_000)]
    chart = line_chart({"a": points}, begin_s=0.0, end_s=9_999.0)
    assert len(chart) < 10_000
    assert "M60.0 128.0L" in chart
    assert "L860.0 10.0" in chart


def test_chart_of_nothing_says_so() -> None:
    """Where a run had no averages."""
    assert line_chart({"a": []}, begin_s=0.0, end_s=1.0) == "<p>Nothing was recorded.</p>"


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")
def test_lanes_are_drawn_in_a_browser(tmp_path: Path) -> None:
    """Each column of each rank is painted, and the script ends without an error."""
    page_of(tmp_path)
    options = ("--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=2000")
    done = subprocess.run(
        [
            str(CHROMIUM),
            f"--user-data-dir={tmp_path / 'profile'}",
            *options,
            "--dump-dom",
            str(tmp_path / "page.html"),
        ],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert re.findall(r'data-drawn="(\d+)"', done.stdout) == ["4000"]
    assert "<h3>The whole run</h3>" in done.stdout
    assert re.findall(r"<span>(.*?)</span>", done.stdout)[-3:] == ["0 s", "3.3 s", "6.5 s"]
