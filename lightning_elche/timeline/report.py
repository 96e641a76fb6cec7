"""A page about a run that needs nothing but a browser."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from html import escape
from importlib import resources
from pathlib import Path
from string import Template
from typing import Any

from lightning_elche.timeline.aligned import RankTimeline, RunTimeline
from lightning_elche.timeline.bulk import in_bulk
from lightning_elche.timeline.causes import CAUSES
from lightning_elche.timeline.charts import line_chart
from lightning_elche.timeline.events import INSTANTS
from lightning_elche.timeline.lanes import lanes_of
from lightning_elche.timeline.palette import IDLE_CAUSES, LOOKS
from lightning_elche.timeline.verdict import idle_ratio

__all__ = ["write_page"]

MAX_HAPPENINGS = 500
MAX_TEXT = 200
TOO_MANY = frozenset(("average", "chunk"))  # to list them
GAUGES = ("cpu", "memory", "disk")
MAX_LINES = 16


@in_bulk
def write_page(timeline: RunTimeline, path: Path) -> None:
    """Write the report of a run as one HTML file, at most 2 MiB long."""
    path.write_text(_page(timeline), encoding="utf-8")


def _page(timeline: RunTimeline) -> str:
    header = timeline.header
    seconds = (timeline.end_ns - timeline.begin_ns) / 1e9
    template = (
        resources.files("lightning_elche.timeline").joinpath("report.html").read_text("utf-8")
    )
    data = {
        "looks": [tuple(LOOKS[cause]) for cause in CAUSES],
        "labels": [f"rank {rank.rank}" for rank in timeline.ranks],
        "lanes": lanes_of(timeline),
    }
    verdicts = [verdict.text for verdict in timeline.verdicts()]
    return Template(template).substitute(
        title=f"Run of {len(timeline.ranks)} ranks, {seconds:.1f} s",
        subtitle=escape(f"{header.get('strategy')}, run {header.get('run')}"),
        verdicts=_items(verdicts or ["Nothing held the ranks up."]),
        notes=_items(timeline.notes),
        sums=_sums(timeline.ranks),
        legend=_legend(timeline.ranks),
        idle=_idle(timeline.ranks),
        share=_chart(timeline, "share"),
        throughput=_chart(timeline, "samples_per_s"),
        anchor=_anchors(timeline),
        happenings=_happenings(timeline.ranks),
        hosts=_hosts(timeline),
        config=escape(json.dumps(dict(header), indent=2)),
        # A "<" could end the element that holds the data.
        data=json.dumps(data, separators=(",", ":")).replace("<", "\\u003c"),
    )


def _items(texts: Iterable[str]) -> str:
    return "".join(f"<li>{escape(text)}</li>" for text in texts)


def _row(cells: Iterable[str], tag: str = "td") -> str:
    return "<tr>" + "".join(f"<{tag}>{cell}</{tag}>" for cell in cells) + "</tr>"


def _sums(ranks: Sequence[RankTimeline]) -> str:
    rows = []
    for rank in ranks:
        totals = rank.times.totals
        whole = sum(totals.values()) or 1.0
        bars = "".join(
            f'<div title="{LOOKS[cause].words} {ns / whole:.1%}" '
            f'style="width:{100.0 * ns / whole:.2f}%;background:{LOOKS[cause].color}"></div>'
            for cause, ns in totals.items()
            if ns > 0.0
        )
        name = escape(f"rank {rank.rank}, {rank.device}")
        idle = f"idle {idle_ratio(rank.times):.1%}"
        rows.append(_row((name, f'<div class="bar">{bars}</div>', idle)))
    return "".join(rows)


def _legend(ranks: Sequence[RankTimeline]) -> str:
    used = {cause for rank in ranks for cause, ns in rank.times.totals.items() if ns > 0.0}
    return "".join(
        f'<span class="key"><i style="background:{look.color}"></i>{look.words}</span>'
        for cause, look in LOOKS.items()
        if cause in used
    )


def _idle(ranks: Sequence[RankTimeline]) -> str:
    totals = [rank.times.totals for rank in ranks]
    causes = [cause for cause in IDLE_CAUSES if any(total[cause] > 0.0 for total in totals)]
    head = _row(("", *(LOOKS[cause].words for cause in causes)), "th")
    return head + "".join(
        _row((f"rank {rank.rank}", *(f"{total[cause] / 1e9:.2f}" for cause in causes)))
        for rank, total in zip(ranks, totals, strict=True)
    )


def _chart(timeline: RunTimeline, name: str) -> str:
    lines = {
        f"rank {rank.rank}": [
            (t_ns / 1e9, float(record.a[name])) for t_ns, record in rank.of_kind("rank")
        ]
        for rank in timeline.ranks[:MAX_LINES]
    }
    return line_chart(lines, begin_s=timeline.begin_ns / 1e9, end_s=timeline.end_ns / 1e9)


def _anchors(timeline: RunTimeline) -> str:
    points = [(t / 1e9, float(r.a["anchor"])) for t, r in timeline.ranks[0].of_kind("rank")]
    begin_s, end_s = timeline.begin_ns / 1e9, timeline.end_ns / 1e9
    return line_chart({"anchor": points}, begin_s=begin_s, end_s=end_s, is_staircase=True)


def _hosts(timeline: RunTimeline) -> str:
    charts = []
    for rank in timeline.ranks:
        points = rank.of_kind("host")
        if not points:
            continue
        lines = {
            f"{gauge} %": [
                (t / 1e9, float(r.a[gauge])) for t, r in points if r.a.get(gauge) is not None
            ]
            for gauge in GAUGES
        }
        for number in range(len(points[-1][1].a.get("gpu", ()))):
            lines[f"gpu {number} %"] = [
                (t / 1e9, float(r.a["gpu"][number]))
                for t, r in points
                if len(r.a.get("gpu", ())) > number
            ]
        chart = line_chart(lines, begin_s=timeline.begin_ns / 1e9, end_s=timeline.end_ns / 1e9)
        charts.append(f"<h3>{escape(str(rank.log.header.get('host')))}</h3>{chart}")
    return "".join(charts[:MAX_LINES]) or "<p>Nothing was recorded.</p>"


def _happenings(ranks: Sequence[RankTimeline]) -> str:
    listed = INSTANTS - TOO_MANY
    found = [
        (t_ns, rank.rank, record.k, record.a)
        for rank in ranks
        for t_ns, record in rank.points
        if record.ph == "i" and record.k in listed
    ]
    found.sort(key=lambda entry: entry[0])
    rows = [
        _row((f"{t_ns / 1e9:.2f} s", f"rank {rank}", kind, escape(_short(a))))
        for t_ns, rank, kind, a in found[:MAX_HAPPENINGS]
    ]
    if len(found) > MAX_HAPPENINGS:
        rows.append(_row((f"... and {len(found) - MAX_HAPPENINGS} more",)))
    return "".join(rows) or _row(("None.",))


def _short(a: dict[str, Any]) -> str:
    text = ", ".join(f"{key} {value}" for key, value in a.items())
    return text if len(text) <= MAX_TEXT else text[: MAX_TEXT - 3] + "..."
