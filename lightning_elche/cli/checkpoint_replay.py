"""`elche checkpoint replay`: where the fingerprints of a run differ from those of another."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from lightning_elche.cli.checkpoint_lanes import OtherTensor, first_other_tensor
from lightning_elche.cli.checkpoint_output import say, worst
from lightning_elche.cli.checkpoint_places import OTHER_FORMAT, UNREADABLE, place
from lightning_elche.cli.checkpoint_record import Record, RecordError, read_record
from lightning_elche.cli.outcome import Line, Outcome, Problem
from lightning_elche.partition.errors import ReplayError, ReplayFormatError, ReplayIncomplete
from lightning_elche.partition.fs import Fs, LocalFs
from lightning_elche.partition.replay import Replay
from lightning_elche.partition.replay_file import env_differences
from lightning_elche.partition.store_names import checkpoint_name, parse_checkpoint_name

__all__ = ["replay"]

DIVERGED, UNDECIDED = 1, 4


def replay(options: argparse.Namespace) -> Outcome:
    """Return the first fingerprint that differs, and how environments do.

    Raises:
        OSError: If a record cannot be read.
    """
    fs = LocalFs()
    paths = place(options.path_a), place(options.path_b)
    try:
        expected, actual = (read_record(fs, path) for path in paths)
    except RecordError as err:
        code = OTHER_FORMAT if err.is_other_format else UNREADABLE
        return Outcome.error("ReplayFormatError", str(err), str(err.path), code)
    for one in (expected, actual):
        if one.missing is not None:
            say(f"{one.path} goes on from segment {one.missing!r}, which is not there", options)
    return _compared(fs, expected, actual, options)


@dataclass(frozen=True, kw_only=True)
class _Difference:
    kind: str
    text: str
    exit_code: int
    step: int | None = None

    @property
    def word(self) -> str:
        """What begins its line."""
        return "EARLY END" if self.kind == ReplayIncomplete.__name__ else "DIFFERS"


def _compared(fs: Fs, expected: Record, actual: Record, options: argparse.Namespace) -> Outcome:
    found, num_equal = list(_env_differences(expected, actual)), 0
    if expected.scope == actual.scope:
        num_equal, first = _first_difference(expected, actual)
        found += [] if first is None else [first]
    step, tensor = (found[-1].step if found else None), None
    if step is not None:
        tensor = _tensor(fs, expected, actual, options)
        _hint(fs, expected, actual, step, options)
    lines = [Line(one.text, one.word) for one in found]
    lines += [] if tensor is None else [Line(str(tensor), "DIFFERS")]
    is_same = Line(f"{num_equal} fingerprints", "EQUAL", is_calm=True)
    return Outcome(
        lines=tuple(lines) or (is_same,),
        data={
            "expected": _data(expected),
            "actual": _data(actual),
            "num_equal": num_equal,
            "first_divergent_step": step,
            "first_divergent_tensor": None if tensor is None else vars(tensor),
        },
        problems=tuple(Problem(str(actual.path), one.kind, one.text) for one in found),
        exit_code=worst(one.exit_code for one in found),
    )


def _env_differences(expected: Record, actual: Record) -> Iterator[_Difference]:
    for key, (a, b) in env_differences(expected.env, actual.env).items():
        text = f"environment {key}: expected {json.dumps(a)}, got {json.dumps(b)}"
        yield _Difference(kind="environment", text=text, exit_code=UNDECIDED)
    if expected.scope != actual.scope:
        text = f"scope: expected {expected.scope!r}, got {actual.scope!r}; nothing was compared"
        yield _Difference(kind="scope", text=text, exit_code=UNDECIDED)


def _first_difference(expected: Record, actual: Record) -> tuple[int, _Difference | None]:
    """Return how many fingerprints are equal, and what is with the first one that is not."""
    verifier = _verifier(expected, actual)
    try:
        for entry in actual.entries:
            verifier.report(entry)
        verifier.finish()
    except ReplayIncomplete as err:
        early = _Difference(kind=type(err).__name__, text=str(err), exit_code=UNDECIDED)
        return len(verifier.recorded), early
    except ReplayError as err:
        num_equal = len(verifier.recorded)
        bad = actual.entries[num_equal]
        text = f"{err} (averaging event {bad.sync_index})"
        kind = type(err).__name__
        return num_equal, _Difference(kind=kind, text=text, exit_code=DIVERGED, step=bad.step)
    return len(verifier.recorded), None


def _verifier(expected: Record, actual: Record) -> Replay:
    verifier = Replay("verify", expected.entries)
    if actual.missing is not None and actual.entries:
        verifier.restore(actual.entries[0].step - 1)  # it was resumed behind that step
    return verifier


def _tensor(
    fs: Fs, expected: Record, actual: Record, options: argparse.Namespace
) -> OtherTensor | None:
    try:
        return first_other_tensor(fs, expected, actual)
    except (ReplayFormatError, OSError) as err:
        say(f"the first tensor that differs cannot be told: {err}", options)
        return None


def _hint(fs: Fs, a: Record, b: Record, step: int, options: argparse.Namespace) -> None:
    """Name the first checkpoints that both runs have from `step` on."""
    if a.root is None or b.root is None:
        return
    common = {*_steps(fs, a.root)} & {*_steps(fs, b.root)}
    later = [one for one in common if one >= step]
    if later:
        first = checkpoint_name(min(later))
        say(f"see: elche checkpoint diff {a.root / first} {b.root / first}", options)


def _steps(fs: Fs, root: Path) -> Iterator[int]:
    for name in fs.list_names(root):
        parsed = parse_checkpoint_name(name)
        if parsed is not None and parsed.label is None:
            yield parsed.step


def _data(record: Record) -> dict[str, object]:
    return {
        "path": str(record.path),
        "segments": record.segments,
        "scope": record.scope,
        "num_entries": len(record.entries),
        "env": dict(record.env),
    }
