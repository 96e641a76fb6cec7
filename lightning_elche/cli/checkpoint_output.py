"""Where the result of `elche checkpoint` goes, and in which format."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable
from pathlib import Path

from lightning_elche.cli.outcome import Line, Outcome, Problem, as_json, as_workflow
from lightning_elche.cli.streams import is_colored, write_result
from lightning_elche.contracts.reports.printable import printable
from lightning_elche.contracts.reports.workflow import escape_property

__all__ = ["FORMATS", "emit", "render", "say", "worst"]

FORMATS = ("text", "json", "github")
SCHEMA = "elche/checkpoint-report-v1"
RED, YELLOW, GREEN = "31", "33", "32"
COLORS = {
    **dict.fromkeys(("BAD", "DIFFERS", "FAILED"), RED),
    **dict.fromkeys(("OTHER FORMAT", "UNREADABLE", "REMOVE", "REMOVED", "EARLY END"), YELLOW),
    **dict.fromkeys(("OK", "EQUAL"), GREEN),
}
SEVERITY = (2, 3, 1, 4)  # of exit codes, the worst first


def worst(codes: Iterable[int]) -> int:
    """Return the exit code of several."""
    found = set(codes)
    return next((code for code in SEVERITY if code in found), 0)


def render(outcome: Outcome, options: argparse.Namespace) -> str:
    """Return the result in its format."""
    return _RENDERERS[options.format](outcome, options)


def emit(text: str, outcome: Outcome, options: argparse.Namespace) -> None:
    """Write the result to `--output` or to standard output.

    Raises:
        OSError: If the file cannot be written.
    """
    if options.output is not None:
        Path(options.output).write_text(f"{text}\n", encoding="utf-8", errors="backslashreplace")
    elif text:
        write_result(text)
    if not outcome.lines:  # the verb could not go on
        for problem in outcome.problems:
            print(f"elche: {printable(problem.message)}", file=sys.stderr)


def say(message: str, options: argparse.Namespace) -> None:
    """Tell the user something that is not the result; nothing with `--quiet`."""
    if not options.quiet:
        print(f"elche: {printable(message)}", file=sys.stderr)


def _text(outcome: Outcome, options: argparse.Namespace) -> str:
    has_colors = options.output is None and is_colored()
    shown = [line for line in outcome.lines if not (options.quiet and line.is_calm)]
    width = max((len(line.word) for line in shown), default=0)
    return "\n".join(_line(line, width, has_colors) for line in shown)


def _line(line: Line, width: int, has_colors: bool) -> str:
    if not width:
        return printable(line.text)
    word = line.word
    if has_colors and word in COLORS:
        word = f"\x1b[{COLORS[word]}m{word}\x1b[0m"
    return f"{word}{' ' * (width - len(line.word))}  {printable(line.text)}".rstrip()


def _json(outcome: Outcome, options: argparse.Namespace) -> str:
    return as_json(outcome, options, SCHEMA)


def _github(outcome: Outcome, options: argparse.Namespace) -> str:
    return as_workflow(outcome, f"elche checkpoint {options.verb}", _properties)


def _properties(one: Problem) -> str:
    return f"file={escape_property(one.path)},title={escape_property(one.kind)}"


_RENDERERS = {"text": _text, "json": _json, "github": _github}
