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
from lightning_elche.timeline.duration import duration_text
from lightning_elche.timeline.events import INSTANTS
from lightning_elche.timeline.lanes import lanes_of
from lightning_elche.timeline.palette import IDLE_CAUSES, LOOKS
from lightning_elche.timeline.verdict import idle_ratio, told

__all__ = ["write_page"]

MAX_HAPPENINGS = 500
MAX_TEXT = 200
# They come again and again, and lanes and charts show what they were.
NOT_LISTED = frozenset(("average", "chunk", "epoch_end", "share", "validation_end"))
TOGETHER_NS = 2 * 10**9  # what ranks tell within it is one row
MIN_RATIO, MIN_NAMED_RATIO = 0.002, 0.06  # of a rank's time, to be shown, and with its number
GAUGES = ("cpu", "memory", "disk")
MAX_LINES = 16


@in_bulk
def write_page(timeline: RunTimeline, path: Path) -> None:
    """Write the report of a run as one HTML file, at most 2 MiB long."""
    path.write_text(_page(timeline), encoding="utf-8")


def _page(timeline: RunTimeline) -> str:
    header = timeline.header
    template = (
        resources.files("lightning_elche.timeline").joinpath("report.html").read_text("utf-8")
    )
    data = {
        "looks": [tuple(LOOKS[cause]) for cause in CAUSES],
        "labels": [f"rank {rank.rank}" for rank in timeline.ranks],
        "lanes": lanes_of(timeline),
    }
    length = duration_text((timeline.end_ns - timeline.begin_ns) / 1e9)
    return Template(template).substitute(
        title=f"{_count(len(timeline.ranks))}, {length}",
        subtitle=escape(f"{header.get('strategy')}, run {header.get('run')}"),
        verdicts=_verdicts(timeline),
        notes="".join(f"<li>{escape(note)}</li>" for note in timeline.notes),
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


def _count(ranks: int) -> str:
    return "Run of 1 rank" if ranks == 1 else f"Run of {ranks} ranks"


def _verdicts(timeline: RunTimeline) -> str:
    found = told(timeline.verdicts())
    if not found:
        return "<li>Nothing held the ranks up.</li>"
    return "".join(_verdict(cause, *text.partition(": ")) for cause, text in found)


def _verdict(cause: str, what: str, colon: str, why: str) -> str:
    chip = f'<i style="background:{LOOKS[cause].color}"></i>'
    return f"<li>{chip}<strong>{escape(what)}</strong>{colon}{escape(why)}</li>"


def _row(cells: Iterable[str], tag: str = "td") -> str:
    return "<tr>" + "".join(f"<{tag}>{cell}</{tag}>" for cell in cells) + "</tr>"


def _sums(ranks: Sequence[RankTimeline]) -> str:
    rows = []
    for rank in ranks:
        totals = rank.times.totals
        whole = sum(totals.values()) or 1.0
        bars = "".join(_bar(cause, ns / whole) for cause, ns in totals.items() if ns > 0.0)
        name = f"rank {rank.rank} <small>{escape(rank.device)}</small>"
        idle = f"idle {idle_ratio(rank.times):.1%}"
        rows.append(f'<div>{name}</div><div class="idle">{idle}</div><div class="bar">{bars}</div>')
    return "".join(rows)


def _bar(cause: str, ratio: float) -> str:
    look = LOOKS[cause]
    number = f"{100.0 * ratio:.0f}" if ratio >= MIN_NAMED_RATIO else ""
    return (
        f'<div title="{look.words} {ratio:.1%}" '
        f'style="width:{100.0 * ratio:.2f}%;background:{look.color}">{number}</div>'
    )


def _used(ranks: Sequence[RankTimeline]) -> set[str]:
    """Return the causes that took any of a rank's time to speak of."""
    sums = [(rank.times.totals, sum(rank.times.totals.values())) for rank in ranks]
    return {c for totals, whole in sums for c, ns in totals.items() if ns > MIN_RATIO * whole}


def _legend(ranks: Sequence[RankTimeline]) -> str:
    used = _used(ranks)
    return "".join(
        f'<span class="key"><i style="background:{look.color}"></i>{look.words}</span>'
        for cause, look in LOOKS.items()
        if cause in used
    )


def _idle(ranks: Sequence[RankTimeline]) -> str:
    used = _used(ranks)
    causes = [cause for cause in IDLE_CAUSES if cause in used]
    if not causes:
        return _row(("None.",))
    head = _row(("", *(LOOKS[cause].words for cause in causes)), "th")
    return head + "".join(
        _row((f"rank {rank.rank}", *(f"{rank.times.totals[c] / 1e9:.2f}" for c in causes)))
        for rank in ranks
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
    found = sorted(
        (t_ns, rank.rank, kind, _short(record.a))
        for rank in ranks
        for kind in INSTANTS - NOT_LISTED
        for t_ns, record in rank.of_kind(kind)
    )
    groups: list[tuple[float, list[int], str, str]] = []
    latest: dict[tuple[str, str], tuple[float, list[int], str, str]] = {}
    for t_ns, rank, kind, text in found:
        group = latest.get((kind, text))
        if group is not None and t_ns - group[0] < TOGETHER_NS and rank not in group[1]:
            group[1].append(rank)
        else:
            latest[kind, text] = (t_ns, [rank], kind, text)
            groups.append(latest[kind, text])
    rows = [
        _row((duration_text(t_ns / 1e9), _ranks(numbers, len(ranks)), kind, escape(text)))
        for t_ns, numbers, kind, text in groups[:MAX_HAPPENINGS]
    ]
    if len(groups) > MAX_HAPPENINGS:
        rows.append(_row((f"... and {len(groups) - MAX_HAPPENINGS} more",)))
    return "".join(rows) or _row(("None.",))


def _ranks(numbers: Sequence[int], world: int) -> str:
    if len(numbers) == 1:
        return f"rank {numbers[0]}"
    return "all ranks" if len(numbers) == world else f"ranks {', '.join(map(str, sorted(numbers)))}"


def _short(a: dict[str, Any]) -> str:
    text = ", ".join(f"{key} {value}" for key, value in a.items())
    return text if len(text) <= MAX_TEXT else text[: MAX_TEXT - 3] + "..."
