"""Finds the checkpoint to resume from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from lightning_elche.partition.errors import (
    CheckpointError,
    NoCheckpointFound,
    NoValidCheckpoint,
)
from lightning_elche.partition.fs import Fs
from lightning_elche.partition.manifest import Manifest
from lightning_elche.partition.read_checkpoint import Depth, verify_checkpoint
from lightning_elche.partition.store_names import parse_checkpoint_name

__all__ = ["Choice", "choose_checkpoint"]

# How often a root is read again because it changed meanwhile: a save removes an old one.
MAX_LOOKS = 20

Rejections = dict[str, str]


@dataclass(frozen=True, kw_only=True)
class Choice:
    """The newest checkpoint that can be resumed from.

    Attributes:
        path: Where it lies.
        manifest: What it says of itself.
        rejections: Newer ones that cannot, with the reason.
    """

    path: Path
    manifest: Manifest
    rejections: tuple[tuple[str, str], ...] = ()


def choose_checkpoint(fs: Fs, root: Path, *, at_most: int | None = None) -> Choice:
    """Return the newest checkpoint of a root that can be resumed from, verified in full.

    Args:
        fs: The file system.
        root: The folder of checkpoints.
        at_most: The latest step that counts; `None` for any.

    Raises:
        NoCheckpointFound: If there are none at all.
        NoValidCheckpoint: If there are some, and none is good: never a reason to start afresh.
    """
    for _ in range(MAX_LOOKS):
        names = _candidates(fs, root, at_most)
        rejections: Rejections = {}
        choice = _newest_good(fs, root, names, rejections)
        if choice is not None:
            return choice
        if _candidates(fs, root, at_most) == names:
            break
    if not names:
        raise NoCheckpointFound(str(root))
    raise NoValidCheckpoint(str(root), tuple(sorted(rejections.items())))


def _candidates(fs: Fs, root: Path, at_most: int | None) -> list[str]:
    try:
        names = fs.list_names(root)
    except (FileNotFoundError, NotADirectoryError) as err:
        raise NoCheckpointFound(str(root)) from err
    parsed = {name: parse_checkpoint_name(name) for name in names}
    return [
        name
        for name, one in parsed.items()
        if one is not None and (at_most is None or one.step <= at_most)
    ]


def _newest_good(fs: Fs, root: Path, names: list[str], rejections: Rejections) -> Choice | None:
    readable = {name: _good(fs, root / name, "shallow", rejections) for name in names}
    manifests = [one for one in readable.values() if one is not None]
    manifests.sort(key=lambda one: (one.sequence, one.step, one.name))
    for manifest in reversed(manifests):
        path = root / manifest.name
        if not manifest.finite:
            rejections[path.name] = "not fit to resume from: NaN in the model, or an objection"
        elif _good(fs, path, "full", rejections) is not None:
            told = tuple(sorted(rejections.items()))
            return Choice(path=path, manifest=manifest, rejections=told)
    return None


def _good(fs: Fs, path: Path, depth: Depth, rejections: Rejections) -> Manifest | None:
    try:
        return verify_checkpoint(fs, path, depth)
    except CheckpointError as err:
        rejections[path.name] = str(err)
        return None
