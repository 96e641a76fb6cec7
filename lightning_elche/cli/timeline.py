"""`elche timeline`: what the ranks of a run spent their time on."""

from __future__ import annotations

import argparse
import json
import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightning_elche.cli.arguments import parse_path, parse_picture
from lightning_elche.cli.streams import write_result
from lightning_elche.timeline.aligned import RankTimeline, RunTimeline, load
from lightning_elche.timeline.causes import CAUSES
from lightning_elche.timeline.reader import NoEvents
from lightning_elche.timeline.report import write_page
from lightning_elche.timeline.swimlane import draw_run
from lightning_elche.timeline.trace import write_trace
from lightning_elche.timeline.trace_merge import read_profile
from lightning_elche.timeline.verdict import idle_ratio

if TYPE_CHECKING:
    Verbs = argparse._SubParsersAction[argparse.ArgumentParser]

__all__ = ["add_to"]

HOLDS, VIOLATED, NO_EVENTS, RANK_MISSING = 0, 1, 3, 4


def add_to(verbs: Verbs) -> None:
    """Add the verb to the parser of `elche`."""
    parser = verbs.add_parser(
        "timeline",
        help="show what the ranks of a run spent their time on",
        description="Reads the event logs of a run: prints verdicts and where the time of each "
        "rank went, or writes a trace, a page or a picture.",
        epilog="Exit code: 0; 1 if --fail-idle is exceeded; 2 if that could not be done; 3 if "
        "there are no events; 4 if a rank has none.",
    )
    parser.add_argument("run_folder", metavar="RUN", type=parse_path, help="folder of the run")
    parser.add_argument(
        "-o", "--output", type=Path, metavar="TRACE", help="trace for ui.perfetto.dev (.json[.gz])"
    )
    parser.add_argument("--html", type=Path, metavar="FILE", help="report for a browser")
    parser.add_argument(
        "--png", type=parse_picture, metavar="FILE", help="picture; needs matplotlib"
    )
    parser.add_argument(
        "--detail", type=_window_range, metavar="A:B", help="draw each step of windows A to B - 1"
    )
    parser.add_argument(
        "--since", type=_seconds, default=0.0, metavar="S", help="seconds since the begin"
    )
    parser.add_argument(
        "--until", type=_seconds, default=math.inf, metavar="S", help="seconds since the begin"
    )
    parser.add_argument("--merge", type=Path, metavar="FILE", help="add a trace of torch.profiler")
    parser.add_argument(
        "--fail-idle", type=_ratio, metavar="RATIO", help="exit with 1 if a rank idles more"
    )
    parser.add_argument("--format", choices=("text", "json"), default="text", help="of the result")
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    try:
        timeline = load(Path(options.run_folder), since_s=options.since, until_s=options.until)
    except NoEvents as err:
        print(f"elche: {err}", file=sys.stderr)
        return NO_EVENTS
    _write_files(timeline, options)
    is_json = options.format == "json"
    write_result(json.dumps(_result(timeline), indent=2) if is_json else _text(timeline))
    if timeline.missing:
        return RANK_MISSING
    limit = math.inf if options.fail_idle is None else options.fail_idle
    return VIOLATED if any(idle_ratio(rank.times) > limit for rank in timeline.ranks) else HOLDS


def _write_files(timeline: RunTimeline, options: argparse.Namespace) -> None:
    if options.output is not None:
        merged = read_profile(options.merge, timeline) if options.merge is not None else ()
        write_trace(timeline, options.output, detail=options.detail, merged=merged)
    elif options.merge is not None or options.detail is not None:
        raise ValueError(
            "`--merge` and `--detail` need a trace to go into. Add `-o trace.json.gz`."
        )
    if options.html is not None:
        write_page(timeline, options.html)
    if options.png is not None:
        draw_run(timeline, options.png)


def _result(timeline: RunTimeline) -> dict[str, Any]:
    return {
        "run": timeline.header.get("run"),
        "seconds": (timeline.end_ns - timeline.begin_ns) / 1e9,
        "missing": timeline.missing,
        "notes": timeline.notes,
        "verdicts": [
            {"rank": verdict.rank, "kind": verdict.kind, "ratio": verdict.ratio}
            for verdict in timeline.verdicts()
        ],
        "ranks": [_rank_result(rank) for rank in timeline.ranks],
    }


def _rank_result(rank: RankTimeline) -> dict[str, Any]:
    times = rank.times
    return {
        "rank": rank.rank,
        "device": rank.device,
        "idle_ratio": idle_ratio(times),
        "seconds": {cause: ns / 1e9 for cause, ns in times.totals.items()},
    }


def _text(timeline: RunTimeline) -> str:
    verdicts = [verdict.text for verdict in timeline.verdicts()]
    return "\n".join(
        (
            *(verdicts or ["Nothing held the ranks up."]),
            *(f"Note: {note}" for note in timeline.notes),
            "",
            *_table(timeline),
        )
    )


def _table(timeline: RunTimeline) -> list[str]:
    """Return a line for each rank, with the percent of its time of each cause that there was."""
    totals = [rank.times.totals for rank in timeline.ranks]
    causes = [cause for cause in CAUSES if any(total[cause] > 0.0 for total in totals)]
    lines = [
        " ".join(("rank", "seconds", *(cause.rjust(len(cause) + 1) for cause in causes), "  idle"))
    ]
    for rank, total in zip(timeline.ranks, totals, strict=True):
        whole = sum(total.values()) or 1.0
        cells = (f"{total[cause] / whole:.1%}".rjust(len(cause) + 1) for cause in causes)
        idle = f"{idle_ratio(rank.times):.1%}".rjust(6)
        lines.append(" ".join((f"{rank.rank:4}", f"{whole / 1e9:7.1f}", *cells, idle)))
    return lines


def _window_range(text: str) -> tuple[int, int]:
    low, _, high = text.partition(":")
    if not (low.isdecimal() and high.isdecimal() and int(low) < int(high)):
        raise argparse.ArgumentTypeError(f"must be two indices such as 10:20, got {text!r}")
    return int(low), int(high)


def _seconds(text: str) -> float:
    return _number(text, "seconds", high=math.inf)


def _ratio(text: str) -> float:
    return _number(text, "a ratio from 0 to 1", high=1.0)


def _number(text: str, what: str, *, high: float) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0.0 <= value <= high:
        raise argparse.ArgumentTypeError(f"must be {what}, got {text!r}")
    return value
