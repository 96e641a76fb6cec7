"""`elche simulate`: what a run on ranks of given speeds would be like, in seconds."""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import cycle, islice
from typing import TYPE_CHECKING, Any

from lightning_elche.cli.arguments import parse_picture
from lightning_elche.cli.outcome import Line, Outcome
from lightning_elche.cli.single import add_output, report
from lightning_elche.control.cadence import CadenceConfig
from lightning_elche.control.simulation import Scenario, SimulatedRun, simulate
from lightning_elche.timeline.causes import Slice
from lightning_elche.timeline.swimlane import Lane, draw_lanes

if TYPE_CHECKING:
    Verbs = argparse._SubParsersAction[argparse.ArgumentParser]

__all__ = ["add_to"]

BATCHES_PER_RANK = 1000
MAX_LANES = 16
LEAST, MOST = 1e-9, 1e15  # beyond any machine, and far from where floats end
BITS_PER_VALUE = 32.0
BITS_PER_MS_OF_MBIT = 1000.0


def add_to(verbs: Verbs) -> None:
    """Add the verb to the parser of `elche`."""
    parser = verbs.add_parser(
        "simulate",
        help="predict efficiency, idle time and anchor for ranks of given speeds",
        description="Drives the controller of ElCheStrategy by simulated ranks, without training.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument(
        "--speeds", type=_speeds, default=(1.0, 0.25), help="relative speeds, such as 1,1,0.25"
    )
    parser.add_argument("--ranks", type=_ranks, help="number of ranks; the speeds are repeated")
    parser.add_argument("--step-ms", type=_positive, default=20.0, help="step time at speed 1")
    parser.add_argument(
        "--batches",
        type=int,
        default=argparse.SUPPRESS,
        help=f"batches in an epoch, over all ranks (default: {BATCHES_PER_RANK} per rank)",
    )
    parser.add_argument("--epochs", type=int, default=1, help="number of epochs")
    parser.add_argument(
        "--parameters", type=_positive, default=1e6, help="number of float32 parameters"
    )
    parser.add_argument(
        "--optimizer-states",
        type=int,
        default=2,
        choices=(0, 1, 2),
        help="values averaged beside each parameter: 2 for Adam, 1 for momentum, 0 to keep them",
    )
    parser.add_argument(
        "--link", type=_positive, default=10_000.0, metavar="MBIT", help="slowest link, in Mbit/s"
    )
    parser.add_argument(
        "--event-ms", type=_positive, default=2.0, help="cost of an event beside what it sends"
    )
    parser.add_argument("--anchor", type=int, default=10, help="anchor at the start")
    parser.add_argument(
        "--png", type=parse_picture, metavar="FILE", help="also draw the run to this file"
    )
    add_output(parser, quiet="show only the efficiency", verbose="show each epoch, too")
    parser.set_defaults(run=partial(report, _simulate), verb="simulate")


def _simulate(options: argparse.Namespace) -> Outcome:
    ranks = options.ranks or len(options.speeds)
    batches = getattr(options, "batches", BATCHES_PER_RANK * ranks)
    if ranks < 2:
        raise ValueError(
            "`--speeds` must be of at least 2 ranks, such as 1,0.25, or add `--ranks`."
        )
    if batches < ranks:
        raise ValueError(f"`--batches` must be at least {ranks}, one for each rank, got {batches}.")
    speeds = list(islice(cycle(options.speeds), ranks))
    values = options.parameters * (1 + options.optimizer_states)
    transfer_ms = options.event_ms + _exchange_ms(values, options.link, len(speeds))
    run = simulate(
        Scenario(
            world_size=len(speeds),
            step_ms=lambda rank, _: options.step_ms / speeds[rank],
            batches=batches,
            epochs=options.epochs,
            transfer_ms=transfer_ms,
            cadence=CadenceConfig(anchor=options.anchor, max_anchor=max(200, options.anchor)),
        )
    )
    result = _result(run, speeds, transfer_ms)
    if options.png is not None:
        lanes = min(len(speeds), MAX_LANES)
        title = f"simulated: efficiency {run.efficiency:.1%}, {len(run.events)} averaging events"
        if lanes < len(speeds):
            title += f"; {lanes} of {len(speeds)} ranks"
        draw_lanes(
            [_lane(run, rank, transfer_ms) for rank in range(lanes)], options.png, title=title
        )
    lines = [Line(text, is_calm=number > 0) for number, text in enumerate(_texts(result))]
    if options.verbose:
        lines += map(Line, _epochs(run))
    return Outcome(lines=tuple(lines), data=result)


def _exchange_ms(values: float, link_mbit: float, ranks: int) -> float:
    """Time of a ring all-reduce: every rank sends 2 (n - 1) / n of the data (Patarasuk, 2009)."""
    return 2.0 * (ranks - 1) / ranks * values * BITS_PER_VALUE / (link_mbit * BITS_PER_MS_OF_MBIT)


def _result(run: SimulatedRun, speeds: Sequence[float], transfer_ms: float) -> dict[str, Any]:
    waited = sum(sum(epoch.wait_ms) for epoch in run.epochs)
    return {
        "ranks": len(speeds),
        "efficiency": run.efficiency,
        "fastest_alone": max(speeds) / sum(speeds),
        "idle_ratio": waited / (run.wall_ms * len(speeds)),
        "exchange_ms": transfer_ms,
        "events": len(run.events),
        "wall_s": run.wall_ms / 1000.0,
        "share": list(run.epochs[-1].share),
        "anchor": [event.anchor for event in run.events],
    }


def _texts(result: dict[str, Any]) -> tuple[str, ...]:
    shares, anchors = result["share"], result["anchor"]
    shown = ", ".join(f"{share:.1%}" for share in shares[:MAX_LANES])
    more = f" and {len(shares) - MAX_LANES} more" if len(shares) > MAX_LANES else ""
    return (
        f"efficiency      {result['efficiency']:.1%} of the sum of {result['ranks']} ranks",
        f"fastest alone   {result['fastest_alone']:.1%} of the sum",
        f"idle            {result['idle_ratio']:.1%} of the ranks' time",
        f"averaging       {result['events']} events of {result['exchange_ms']:.1f} ms",
        f"anchor          {anchors[0]} at first, {anchors[-1]} at last, "
        f"{min(anchors)} to {max(anchors)}",
        f"shares          {shown}{more}",
        f"duration        {result['wall_s']:.1f} s",
    )


def _epochs(run: SimulatedRun) -> Iterator[str]:
    for number, epoch in enumerate(run.epochs):
        waited = ", ".join(f"{ms / 1000.0:.1f}" for ms in epoch.wait_ms[:MAX_LANES])
        yield f"epoch {number:<10}waited {waited} s"


def _lane(run: SimulatedRun, rank: int, transfer_ms: float) -> Lane:
    share = 100.0 * run.epochs[-1].share[rank]
    slices = list(_slices(run, rank, transfer_ms))
    return Lane(label=f"rank {rank}\n{share:.3g} % of samples", slices=slices)


def _slices(run: SimulatedRun, rank: int, transfer_ms: float) -> Iterator[Slice]:
    left_ms = 0.0
    for event in run.events:
        arrived_ms = event.time_ms - event.wait_ms[rank]
        for cause, start_ms, end_ms in (
            ("compute", left_ms, arrived_ms),
            ("average_wait", arrived_ms, event.time_ms),
            ("average_transfer", event.time_ms, event.time_ms + transfer_ms),
        ):
            yield Slice(1e6 * start_ms, 1e6 * end_ms, {cause: 1e6 * (end_ms - start_ms)})
        left_ms = event.time_ms + transfer_ms


def _speeds(text: str) -> tuple[float, ...]:
    return tuple(_positive(part) for part in text.split(","))


def _ranks(text: str) -> int:
    if not text.isdecimal() or int(text) < 2:
        raise argparse.ArgumentTypeError(f"must be a whole number of at least 2, got {text!r}")
    return int(text)


def _positive(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not LEAST <= value <= MOST:
        raise argparse.ArgumentTypeError(
            f"must be a number from {LEAST:g} to {MOST:g}, got {text!r}"
        )
    return value
