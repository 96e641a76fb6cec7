"""How the result of `elche coord` is shown."""

from __future__ import annotations

import argparse
import sys

from lightning_elche.cli.outcome import Line, Outcome, Problem, as_json, as_workflow
from lightning_elche.cli.streams import is_colored, write_result
from lightning_elche.contracts.reports.printable import printable
from lightning_elche.contracts.reports.workflow import escape_property

__all__ = ["FORMATS", "complain", "emit", "paint", "render"]

FORMATS = ("text", "json", "github")
SCHEMA = "elche/coord-report-v1"
RED, YELLOW, GREEN = "31", "33", "32"
COLORS = {
    **dict.fromkeys(("UNHEALTHY", "REFUSED", "ERROR", "GONE"), RED),
    **dict.fromkeys(("STALE", "PAUSED", "STOPPED", "WAITS"), YELLOW),
    **dict.fromkeys(("HEALTHY", "ADMITTED", "DONE"), GREEN),
}


def render(outcome: Outcome, options: argparse.Namespace) -> str:
    """Return the result in its format."""
    if options.format == "json":
        return _json(outcome, options)
    return _github(outcome, options) if options.format == "github" else _text(outcome, options)


def emit(outcome: Outcome, options: argparse.Namespace) -> int:
    """Print the result, and return the exit code."""
    if text := render(outcome, options):
        write_result(text)
    if options.format == "text" and not outcome.lines:
        for problem in outcome.problems:
            complain(problem.message)
    return outcome.exit_code


def complain(message: str) -> None:
    """Tell the user something that is not the result."""
    print(f"elche: {printable(message)}", file=sys.stderr, flush=True)


def paint(word: str) -> str:
    """Return a word in its colour, if standard output shows it."""
    return f"\x1b[{COLORS[word]}m{word}\x1b[0m" if word in COLORS and is_colored() else word


def _text(outcome: Outcome, options: argparse.Namespace) -> str:
    shown = [line for line in outcome.lines if not (options.quiet and line.is_calm)]
    width = max((len(line.word) for line in shown), default=0)
    return "\n".join(_line(line, width) for line in shown)


def _line(line: Line, width: int) -> str:
    if not width:
        return printable(line.text)
    return f"{paint(line.word)}{' ' * (width - len(line.word))}  {printable(line.text)}".rstrip()


def _json(outcome: Outcome, options: argparse.Namespace) -> str:
    return as_json(outcome, options, SCHEMA)


def _github(outcome: Outcome, options: argparse.Namespace) -> str:
    return as_workflow(outcome, f"elche coord {options.verb}", _properties)


def _properties(one: Problem) -> str:
    return f"title={escape_property(f'{one.kind} {one.path}'.strip())}"
