"""What a benchmark hands on: JSON with every run, a table in Markdown, a plot."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypedDict

import report
from bench import Run
from plot import draw, has_matplotlib


class Result(TypedDict):
    """One table, with all that it was made from."""

    title: str
    machine: dict[str, str | int]
    settings: dict[str, object]
    summary: dict[str, dict[str, float]]
    repeats: list[dict[str, Run]]


def add_output_options(parser: argparse.ArgumentParser) -> None:
    """Add where to write results."""
    add = parser.add_argument
    add("--json", type=Path, help="where to write all results; `render.py` reads them")
    add("--markdown", type=Path, help="where to write the table")
    add("--plot", type=Path, help="where to draw the efficiencies; needs matplotlib")


def check_output_options(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    """Refuse what could not be written, before anything is measured."""
    check_folders(parser, options, ("json", "markdown", "plot"))
    if options.plot and not has_matplotlib():
        parser.error("argument --plot: needs matplotlib; run: pip install matplotlib")


def check_folders(
    parser: argparse.ArgumentParser, options: argparse.Namespace, names: Sequence[str]
) -> None:
    """Refuse the options of these names whose file would be in a folder that does not exist."""
    for name in names:
        path = getattr(options, name)
        if path and not path.resolve().parent.is_dir():
            parser.error(f"argument --{name}: must be in an existing folder, got {path}")


def write(results: Sequence[Result], options: argparse.Namespace) -> None:
    """Write what the options ask for."""
    if options.json:
        options.json.write_text(json.dumps(results, indent=2) + "\n")
    if options.markdown:
        options.markdown.write_text("\n".join(as_markdown(result) for result in results))
    if options.plot:
        draw({result["title"]: result["summary"] for result in results}, options.plot)


def read(file: Path) -> list[Result]:
    """Return the results that `write` left in a file."""
    results: list[Result] = json.loads(file.read_text())
    return results


def as_markdown(result: Result) -> str:
    """Return the table under its title, with the machine that it is of."""
    table = report.render_markdown(result["summary"])
    return f"### {result['title']}\n\n{table}\n\n{machine_line(result['machine'])}\n"


def machine_line(machine: Mapping[str, str | int]) -> str:
    """Return what a result depends on, in one line."""
    return (
        f"{machine['cpu']}, {machine['cores']} cores, load {machine['load_1min']}, "
        f"torch {machine['torch']}, lightning {machine['lightning']}"
    )
