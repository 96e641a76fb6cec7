"""Where the result of `elche contract` goes, and in which format."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from lightning_elche.cli.streams import is_colored, write_result
from lightning_elche.contracts.reports import github as report_github
from lightning_elche.contracts.reports import json as report_json
from lightning_elche.contracts.reports import junit as report_junit
from lightning_elche.contracts.reports import markdown as report_markdown
from lightning_elche.contracts.reports import sarif as report_sarif
from lightning_elche.contracts.reports import text as report_text
from lightning_elche.contracts.reports.edits import limit_findings
from lightning_elche.contracts.reports.summary import summary
from lightning_elche.contracts.verdicts import Report

__all__ = ["FORMATS", "Outcome", "emit", "say"]

_RENDERERS: dict[str, Callable[[Report], str]] = {
    "json": report_json.render,
    "junit": report_junit.render,
    "sarif": report_sarif.render,
    "github": report_github.render,
    "markdown": report_markdown.render,
}
FORMATS = ("text", *_RENDERERS)


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a verb comes to.

    Attributes:
        result: A report, or text that is printed as it is.
        exit_code: Of the process.
    """

    result: Report | str
    exit_code: int = 0


def emit(outcome: Outcome, options: argparse.Namespace) -> None:
    """Write the result to `--output` or to standard output.

    Raises:
        OSError: If the file cannot be written.
    """
    text = _text(outcome.result, options).rstrip("\n")
    if options.output is not None:
        Path(options.output).write_text(f"{text}\n", encoding="utf-8", errors="backslashreplace")
        if isinstance(outcome.result, Report):
            say(summary(outcome.result), options)
    elif text:
        write_result(text)


def say(message: str, options: argparse.Namespace) -> None:
    """Tell the user something that is not the result; nothing with `--quiet`."""
    if options.verbosity > report_text.QUIET:
        print(f"elche: {message}", file=sys.stderr)


def _text(result: Report | str, options: argparse.Namespace) -> str:
    if isinstance(result, str):
        return result
    report = limit_findings(result, getattr(options, "max_findings", sys.maxsize))
    if options.format != "text":
        return _RENDERERS[options.format](report)
    has_colors = options.output is None and is_colored()
    return report_text.render(report, verbosity=options.verbosity, is_colored=has_colors)
