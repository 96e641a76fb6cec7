"""What a command of `elche` comes to, and how programs are told of it."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from lightning_elche.contracts.reports.printable import printable
from lightning_elche.contracts.reports.workflow import escape_message
from lightning_elche.contracts.strictjson import jsonable
from lightning_elche.version import VERSION

__all__ = ["Line", "Outcome", "Problem", "as_json", "as_workflow", "table"]


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


def table(rows: Iterable[tuple[str, ...]]) -> list[str]:
    """Return rows as lines whose columns are aligned."""
    cells = [tuple(map(printable, row)) for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in cells
    ]


def as_json(outcome: Outcome, options: argparse.Namespace, schema: str) -> str:
    """Return the result as a JSON document.

    Args:
        outcome: What the verb has come to.
        options: Of the command line.
        schema: Names the form of the document.
    """
    document = {
        "schema": schema,
        "version": VERSION,
        "command": options.verb,
        "exit_code": outcome.exit_code,
        "problems": [vars(one) for one in outcome.problems],
        **outcome.data,
    }
    return json.dumps(jsonable(document), indent=2, allow_nan=False)


def as_workflow(outcome: Outcome, command: str, properties: Callable[[Problem], str]) -> str:
    """Return workflow commands of GitHub Actions, and a summary.

    Args:
        outcome: What the verb has come to.
        command: With its verb.
        properties: Returns those of the workflow command for a problem, escaped.
    """
    commands = [
        f"::error {properties(one)}::{escape_message(one.message)}" for one in outcome.problems
    ]
    count = len(outcome.problems)
    problems = "1 problem" if count == 1 else f"{count} problems"
    return "\n".join((*commands, f"{command}: {problems}"))
