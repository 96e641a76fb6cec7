"""From the speeds of a benchmark to the ratios that count."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence

from peers import PEERS

SOLO = ("solo fast", "solo slow")
RAW = ("raw fast", "raw slow")
SIDE_BY_SIDE = "side by side"
DDP = "ddp"
ELCHE = "elche"

# The rows of ElCheStrategy, with what is set beside its defaults.
OURS: dict[str, dict[str, str]] = {
    ELCHE: {},
    "elche-async": {"policy": "async"},
    "elche-cpu": {"backend": "cpu"},
}


def label_of_ours(options: Mapping[str, str]) -> str:
    """Return the label of a row of ElCheStrategy."""
    return ", ".join(["both, ElCheStrategy", *(f'{key} "{to}"' for key, to in options.items())])


LABELS = {
    "solo fast": "fast rank alone",
    "solo slow": "slow rank alone",
    SIDE_BY_SIDE: "both, each its own training",
    DDP: "both, Lightning's DDP",
    **{name: f"both, {peer.label} *" for name, peer in PEERS.items()},
    **{name: label_of_ours(options) for name, options in OURS.items()},
    "raw": "sum of both alone in raw PyTorch",
}

FOOTNOTE = "* a plain PyTorch loop: without what the Trainer, by whose speeds the sum is, costs"

# Samples per second of each run of one repeat, by the name of the run.
Speeds = Mapping[str, float]


def speed(row: str, speeds: Speeds) -> float:
    """Return the samples per second of a row of the table."""
    return sum(speeds[run] for run in RAW) if row == "raw" else speeds[row]


def of_the_sum(row: str, speeds: Speeds) -> float:
    """Return the row's speed over the sum of the solo speeds under the same Trainer."""
    return speed(row, speeds) / sum(speeds[run] for run in SOLO)


def of_side_by_side(row: str, speeds: Speeds) -> float:
    """Return the row's speed over what both do at the same time when they exchange nothing."""
    return speed(row, speeds) / speeds[SIDE_BY_SIDE]


def over_ddp(row: str, speeds: Speeds) -> float:
    """Return the row's speed over that of DDP."""
    return speed(row, speeds) / speeds[DDP]


def over_fast_alone(row: str, speeds: Speeds) -> float:
    """Return the row's speed over what the fast rank does without the slow one."""
    return speed(row, speeds) / speeds["solo fast"]


MEASURES: dict[str, Callable[[str, Speeds], float]] = {
    "samples_per_s": speed,
    "of_the_sum_ratio": of_the_sum,
    "of_side_by_side_ratio": of_side_by_side,
    "over_ddp_ratio": over_ddp,
    "over_fast_alone_ratio": over_fast_alone,
}


def rows_of(speeds: Speeds) -> list[str]:
    """Return the rows that `speeds` allows, in the order of the table."""
    return [row for row in LABELS if row in speeds or (row == "raw" and set(RAW) <= set(speeds))]


def summarise(repeats: Sequence[Speeds]) -> dict[str, dict[str, float]]:
    """Return the medians over all repeats of each measure of each row.

    Ratios are taken within a repeat, whose runs follow each other, so that a machine that slows
    down for a while does so on both sides of a ratio.
    """
    has_ddp = DDP in repeats[0]
    return {
        row: {
            name: statistics.median(measure(row, speeds) for speeds in repeats)
            for name, measure in MEASURES.items()
            if has_ddp or measure is not over_ddp
        }
        | {
            f"of_the_sum_{end.__name__}": end(of_the_sum(row, speeds) for speeds in repeats)
            for end in (min, max)
        }
        for row in rows_of(repeats[0])
    }


HEAD = ("", "samples/s", "of the sum", "(min - max)", "of side by side", "x DDP", "x fast alone")


def render(summary: Mapping[str, Mapping[str, float]]) -> str:
    """Return the table of the medians for a terminal."""
    lines = [_line(cells) for cells in (HEAD, *_cells(summary))]
    return "\n".join([*lines, *_footnotes(summary)])


def render_markdown(summary: Mapping[str, Mapping[str, float]]) -> str:
    """Return the table of the medians in Markdown."""
    rule = ("---", *("---:" for _ in HEAD[1:]))
    lines = [f"| {' | '.join(cells)} |" for cells in (HEAD, rule, *_cells(summary))]
    # Escaped, since Markdown makes text between two asterisks italic.
    notes = [f"\n{note}" for note in _footnotes(summary)]
    return "\n".join([*lines, *notes]).replace("*", r"\*")


def _cells(summary: Mapping[str, Mapping[str, float]]) -> list[tuple[str, ...]]:
    return [
        (
            LABELS[row],
            f"{values['samples_per_s']:,.0f}",
            f"{values['of_the_sum_ratio']:.1%}",
            f"({values['of_the_sum_min']:.1%} - {values['of_the_sum_max']:.1%})",
            f"{values['of_side_by_side_ratio']:.1%}",
            f"{values['over_ddp_ratio']:.2f}" if "over_ddp_ratio" in values else "-",
            f"{values['over_fast_alone_ratio']:.2f}",
        )
        for row, values in summary.items()
    ]


def _footnotes(summary: Mapping[str, Mapping[str, float]]) -> list[str]:
    return [FOOTNOTE] if any(LABELS[row].endswith("*") for row in summary) else []


def _line(cells: Sequence[str]) -> str:
    label, *numbers = cells
    widths = (10, 11, 18, 16, 7, 13)
    columns = (f"{number:>{width}}" for number, width in zip(numbers, widths, strict=True))
    return f"{label:<37}{''.join(columns)}"
