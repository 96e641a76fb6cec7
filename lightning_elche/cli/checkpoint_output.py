"""Where the result of `elche checkpoint` goes, and in which format."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from lightning_elche.cli.streams import is_colored, write_result
from lightning_elche.contracts.reports.printable import printable
from lightning_elche.contracts.reports.workflow import escape_message, escape_property
from lightning_elche.contracts.strictjson import jsonable
from lightning_elche.version import VERSION

__all__ = ["FORMATS", "Line", "Outcome", "Problem", "emit", "render", "say", "table", "worst"]

FORMATS = ("text", "json", "github")
SCHEMA = "elche/checkpoint-report-v1"
RED, YELLOW, GREEN = "31", "33", "32"
COLORS = {
    **dict.fromkeys(("BAD", "DIFFERS", "FAILED"), RED),
    **dict.fromkeys(("OTHER FORMAT", "UNREADABLE", "REMOVE", "REMOVED", "EARLY END"), YELLOW),
    **dict.fromkeys(("OK", "EQUAL"), GREEN),
}
SEVERITY = (2, 3, 1, 4)  # of exit codes, the worst first


@dataclass(frozen=True)
class Line:
    """A line of the text.

    Attributes:
        text: All but the word.
        word: Begins the line and tells the outcome, where lines have one each.
        is_calm: Whether it says that something is not wrong, which a quiet command leaves out.
    """

    text: str
    word: str = ""
    is_calm: bool = False


@dataclass(frozen=True)
class Problem:
    """Something wrong.

    Attributes:
        path: Of what it is wrong with.
        kind: Name of the error, or of what differs.
        message: What is wrong.
    """

    path: str
    kind: str
    message: str


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a verb comes to.

    Attributes:
        lines: The result as text.
        data: The result for programs.
        problems: What is wrong.
        exit_code: Of the process.
    """

    lines: tuple[Line, ...] = ()
    data: Mapping[str, object] = field(default_factory=dict)
    problems: tuple[Problem, ...] = ()
    exit_code: int = 0

    @classmethod
    def error(cls, kind: str, message: str, path: str, exit_code: int) -> Outcome:
        """Return that of a verb that could not go on."""
        return cls(problems=(Problem(path, kind, message),), exit_code=exit_code)


def worst(codes: Iterable[int]) -> int:
    """Return the exit code of several."""
    found = set(codes)
    return next((code for code in SEVERITY if code in found), 0)


def table(rows: Iterable[tuple[str, ...]]) -> list[str]:
    """Return rows as lines whose columns are aligned."""
    cells = [tuple(map(printable, row)) for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in cells
    ]


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
    document = {
        "schema": SCHEMA,
        "version": VERSION,
        "command": options.verb,
        "exit_code": outcome.exit_code,
        "problems": [vars(one) for one in outcome.problems],
        **outcome.data,
    }
    return json.dumps(jsonable(document), indent=2, allow_nan=False)


def _github(outcome: Outcome, options: argparse.Namespace) -> str:
    """Return workflow commands of GitHub Actions, and a summary."""
    commands = [
        f"::error file={escape_property(one.path)},title={escape_property(one.kind)}"
        f"::{escape_message(one.message)}"
        for one in outcome.problems
    ]
    count = len(outcome.problems)
    problems = "1 problem" if count == 1 else f"{count} problems"
    return "\n".join((*commands, f"elche checkpoint {options.verb}: {problems}"))


_RENDERERS = {"text": _text, "json": _json, "github": _github}
