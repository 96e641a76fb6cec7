"""`elche coord watch`: how a run is, again and again."""

from __future__ import annotations

import argparse
import shutil
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from lightning_elche.cli.coord_output import paint
from lightning_elche.cli.coord_places import NO_RUN, NoRun, Seen, look, run_at
from lightning_elche.cli.coord_status import describe, flattened, word_of
from lightning_elche.cli.outcome import Line, Outcome, table
from lightning_elche.contracts.reports.printable import printable
from lightning_elche.coordination.monitoring.metrics_status import part_of

__all__ = ["frame", "watch"]

HOME, CLEAR_LINE, CLEAR_REST = "\x1b[H", "\x1b[K", "\x1b[J"
CLEAR_ALL = "\x1b[2J"
DEFAULT_COLUMNS, DEFAULT_LINES = 80, 24
NUM_DECISIONS = 8
NOT_IN_DECISIONS = ("at", "kind")


def watch(options: argparse.Namespace) -> Outcome | int:
    """Show frames until the run ends; a single one if nobody looks at a terminal."""
    try:
        folder = run_at(options.folder)
        if options.format == "text" and sys.stdout is not None and sys.stdout.isatty():
            return _keep_watching(folder, options.every)
        seen = look(folder)
    except NoRun as err:
        return Outcome.error("NoRun", str(err), options.folder, NO_RUN)
    return Outcome(
        lines=tuple(Line(line) for line in (word_of(seen), *frame(seen))),
        data={"run": str(folder), "verdict": word_of(seen), "status": seen.status},
    )


def frame(seen: Seen) -> Iterator[str]:
    """Yield the lines of a frame but for the word in which the run is summed up."""
    yield describe(seen)
    reason = seen.status.get("reason")
    if reason:
        yield f"  {reason}"
    yield from _parts(seen.status)
    yield from _decisions(seen.status.get("decisions"))


def _keep_watching(folder: Path, every_s: float) -> int:
    sys.stdout.write(CLEAR_ALL)
    try:
        while True:
            seen = look(folder)
            _show(seen)
            if seen.has_ended:
                return 0
            time.sleep(every_s)
    except KeyboardInterrupt:
        return 0
    finally:
        print(flush=True)


def _show(seen: Seen) -> None:
    size = shutil.get_terminal_size()
    # A terminal may not know its size, and Python 3.10 then says 0.
    columns, num_lines = size.columns or DEFAULT_COLUMNS, size.lines or DEFAULT_LINES
    lines = [printable(line)[:columns] for line in frame(seen)]
    shown = [paint(word_of(seen)), *lines][: max(1, num_lines - 1)]
    text = "\n".join(f"{line}{CLEAR_LINE}" for line in shown)
    sys.stdout.write(f"{HOME}{text}{CLEAR_REST}")
    sys.stdout.flush()


def _parts(status: Mapping[str, object]) -> Iterator[str]:
    components = status.get("components")
    if not isinstance(components, Mapping) or not components:
        return
    rows = [("PART", "HEALTH", "")]
    for name, part in components.items():
        health = str(part.get("health", "")) if isinstance(part, Mapping) else ""
        told = " ".join(f"{path}={text}" for path, text in flattened(part_of(status, name)))
        rows.append((str(name), health, told))
    yield ""
    yield from table(rows)


def _decisions(decisions: object) -> Iterator[str]:
    if not isinstance(decisions, Sequence) or not decisions:
        return
    yield ""
    for one in decisions[: -NUM_DECISIONS - 1 : -1]:
        if isinstance(one, Mapping):
            at = one.get("at")
            when = time.strftime("%H:%M:%S", time.localtime(at)) if isinstance(at, float) else ""
            rest = {key: value for key, value in one.items() if key not in NOT_IN_DECISIONS}
            told = " ".join(f"{path}={text}" for path, text in flattened(rest))
            yield f"{when}  {one.get('kind', '')}  {told}".rstrip()
