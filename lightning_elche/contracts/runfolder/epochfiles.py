"""The files of epochs in the folder of a run, found by the template of their paths."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from lightning_elche.contracts.template import PathTemplate

__all__ = ["EpochFile", "find_epoch_files"]


@dataclass(frozen=True, kw_only=True)
class EpochFile:
    """A file, or a folder, whose path names an epoch.

    Attributes:
        epoch: The number in its path.
        path: Where it lies.
        is_canonical: Whether the template would write the number like this.
    """

    epoch: int
    path: Path
    is_canonical: bool


def find_epoch_files(run_dir: Path, template: PathTemplate) -> tuple[EpochFile, ...]:
    """Return what lies at the paths of a template, in the order of the epochs."""
    found = []
    for path in _walk(run_dir / template.folder, depth=template.after.count("/")):
        match = template.match(path.relative_to(run_dir).as_posix())
        if match is not None:
            found.append(EpochFile(epoch=match[0], path=path, is_canonical=match[1]))
    return tuple(sorted(found, key=lambda one: (one.epoch, not one.is_canonical, one.path)))


def _walk(folder: Path, *, depth: int) -> Iterator[Path]:
    """Yield what lies so many folders below a folder; links are yielded, not followed."""
    if not folder.is_dir():
        return
    with os.scandir(folder) as entries:
        ordered = sorted(entries, key=lambda entry: entry.name)
    for entry in ordered:
        path = Path(entry.path)
        if not depth:
            yield path
        elif entry.is_dir(follow_symlinks=False):
            yield from _walk(path, depth=depth - 1)
