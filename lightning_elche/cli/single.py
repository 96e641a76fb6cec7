"""What the verbs `timeline` and `simulate`, which have no verbs of their own, have in common."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable

from lightning_elche.cli.outcome import Outcome, Problem, as_json, as_workflow
from lightning_elche.cli.streams import told, write_result
from lightning_elche.contracts.reports.printable import printable
from lightning_elche.contracts.reports.workflow import escape_property

__all__ = ["add_output", "report"]

FORMATS = ("text", "json", "github")
INVALID = 2


def add_output(parser: argparse.ArgumentParser, *, quiet: str, verbose: str) -> None:
    """Add the options that say how a result is shown.

    Args:
        parser: Gets them.
        quiet: What `--quiet` does.
        verbose: What `--verbose` does.
    """
    parser.add_argument("--format", choices=FORMATS, default="text", help="of the result")
    talk = parser.add_mutually_exclusive_group()
    talk.add_argument("-q", "--quiet", action="store_true", help=quiet)
    talk.add_argument("-v", "--verbose", action="store_true", help=verbose)


def report(verb: Callable[[argparse.Namespace], Outcome], options: argparse.Namespace) -> int:
    """Carry out a verb, print what it comes to, and return the exit code."""
    try:
        outcome = verb(options)
    except (ValueError, OSError, ModuleNotFoundError) as err:
        outcome = Outcome.error(type(err).__name__, told(err), "", INVALID)
    if text := _render(outcome, options):
        write_result(text)
    if options.format == "text":
        for problem in outcome.problems:
            print(f"elche: {printable(problem.message)}", file=sys.stderr, flush=True)
    return outcome.exit_code


def _render(outcome: Outcome, options: argparse.Namespace) -> str:
    if options.format == "json":
        return as_json(outcome, options, f"elche/{options.verb}-report-v1")
    if options.format == "github":
        return as_workflow(outcome, f"elche {options.verb}", _properties)
    shown = [line for line in outcome.lines if not (options.quiet and line.is_calm)]
    return "\n".join(printable(line.text) for line in shown)


def _properties(one: Problem) -> str:
    return f"title={escape_property(f'{one.kind} {one.path}'.strip())}"
