"""`elche checkpoint verify`: whether checkpoints are what was written."""

from __future__ import annotations

import argparse
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from lightning_elche.cli.checkpoint_output import worst
from lightning_elche.cli.checkpoint_places import (
    OTHER_FORMAT,
    UNREADABLE,
    checkpoints_at,
    exit_code_of,
    place,
)
from lightning_elche.cli.outcome import Line, Outcome, Problem
from lightning_elche.partition.errors import CheckpointError, NoCheckpointFound
from lightning_elche.partition.fs import Fs, LocalFs
from lightning_elche.partition.manifest import Manifest
from lightning_elche.partition.read_checkpoint import Depth, verify_checkpoint

__all__ = ["verify"]

WORDS = {0: "OK", 1: "BAD", UNREADABLE: "UNREADABLE", OTHER_FORMAT: "OTHER FORMAT"}


@dataclass(frozen=True)
class _Verified:
    path: Path
    manifest: Manifest | None = None
    error: CheckpointError | None = None

    @property
    def exit_code(self) -> int:
        return 0 if self.error is None else exit_code_of(self.error)


def verify(options: argparse.Namespace) -> Outcome:
    """Return a verdict on each checkpoint.

    Raises:
        NoCheckpointFound: If there are none.
        OSError: If the root cannot be read.
    """
    fs, path = LocalFs(), place(options.path)
    paths = checkpoints_at(fs, path)
    is_root = paths != [path]
    verified = [_verified(fs, one, options.depth) for one in paths]
    # One that has gone meanwhile was removed for a newer one, or archived.
    verified = [one for one in verified if not (is_root and one.error and not fs.lexists(one.path))]
    if not verified:
        raise NoCheckpointFound(str(path))
    return Outcome(
        lines=(*map(_line, verified), *([_sum(verified)] if is_root else [])),
        data={"depth": options.depth, "checkpoints": [_data(one) for one in verified]},
        problems=tuple(
            Problem(str(one.path), type(one.error).__name__, str(one.error))
            for one in verified
            if one.error is not None
        ),
        exit_code=worst(one.exit_code for one in verified),
    )


def _verified(fs: Fs, path: Path, depth: Depth) -> _Verified:
    try:
        return _Verified(path, verify_checkpoint(fs, path, depth))
    except CheckpointError as err:
        return _Verified(path, error=err)


def _line(one: _Verified) -> Line:
    text = one.path.name if one.error is None else str(one.error)
    return Line(text, WORDS[one.exit_code], is_calm=one.error is None)


def _sum(verified: list[_Verified]) -> Line:
    counts = Counter(WORDS[one.exit_code] for one in verified)
    parts = ", ".join(f"{count} {word.lower()}" for word, count in counts.items())
    return Line(f"{len(verified)} in all: {parts}", is_calm=True)


def _data(one: _Verified) -> dict[str, object]:
    known = one.manifest
    return {
        "path": str(one.path),
        "state": WORDS[one.exit_code].lower(),
        "error": None if one.error is None else str(one.error),
        "step": known and known.step,
        "finite": known and known.finite,
        "content_sha256": known and known.content_sha256,
    }
