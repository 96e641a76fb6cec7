"""`elche timeline`: what the ranks of a run spent their time on."""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightning_elche.cli.arguments import parse_path, parse_picture
from lightning_elche.cli.outcome import Line, Outcome, Problem
from lightning_elche.cli.single import add_output, report
from lightning_elche.timeline.aligned import RankTimeline, RunTimeline, load
from lightning_elche.timeline.causes import CAUSES
from lightning_elche.timeline.reader import NoEvents
from lightning_elche.timeline.report import write_page
from lightning_elche.timeline.swimlane import draw_run
from lightning_elche.timeline.trace import write_trace
from lightning_elche.timeline.trace_merge import read_profile
from lightning_elche.timeline.verdict import idle_ratio, told

if TYPE_CHECKING:
    Verbs = argparse._SubParsersAction[argparse.ArgumentParser]

__all__ = ["add_to"]

CLOCKS = {
    "same": "that of the first one",
    "averages": "aligned by the ends of averages",
    "wall": "placed by what the wall clocks showed",
}
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
    add_output(
        parser,
        quiet="show only what held ranks up and what is wrong",
        verbose="show what is true of many ranks for each of them, and how their clocks agree",
    )
    parser.set_defaults(run=partial(report, _timeline), verb="timeline")


def _timeline(options: argparse.Namespace) -> Outcome:
    folder = options.run_folder
    try:
        timeline = load(Path(folder), since_s=options.since, until_s=options.until)
    except NoEvents as err:
        return Outcome.error("NoEvents", str(err), folder, NO_EVENTS)
    _write_files(timeline, options)
    limit = math.inf if options.fail_idle is None else options.fail_idle
    problems = [
        *(Problem(folder, "RankMissing", f"Rank {rank} has no log.") for rank in timeline.missing),
        *_idle_problems(timeline, folder, limit),
    ]
    is_violated = len(problems) > len(timeline.missing)
    return Outcome(
        lines=tuple(_lines(timeline, is_verbose=options.verbose)),
        data=_result(timeline),
        problems=tuple(problems),
        exit_code=RANK_MISSING if timeline.missing else VIOLATED if is_violated else HOLDS,
    )


def _idle_problems(timeline: RunTimeline, folder: str, limit: float) -> Iterator[Problem]:
    for rank in timeline.ranks:
        ratio = idle_ratio(rank.times)
        if ratio > limit:
            message = f"Rank {rank.rank} idles {ratio:.1%} of its time, more than {limit:.1%}."
            yield Problem(folder, "Idle", message)


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


def _lines(timeline: RunTimeline, *, is_verbose: bool) -> Iterator[Line]:
    found = timeline.verdicts()
    texts = [one.text for one in found] if is_verbose else [text for _, text in told(found)]
    if not texts:
        yield Line("Nothing held the ranks up.", is_calm=True)
    yield from map(Line, texts)
    yield from (Line(f"Note: {note}") for note in timeline.notes)
    if is_verbose:
        yield from (
            Line(f"Clock of rank {r.rank}: {CLOCKS[r.offset.source]}") for r in timeline.ranks
        )
    yield Line("", is_calm=True)
    yield from (Line(text, is_calm=True) for text in _table(timeline))


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
