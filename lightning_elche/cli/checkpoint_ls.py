"""`elche checkpoint ls`: the checkpoints of a root."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from lightning_elche.cli.checkpoint_output import say, worst
from lightning_elche.cli.checkpoint_places import exit_code_of, place
from lightning_elche.cli.outcome import Line, Outcome, Problem, table
from lightning_elche.partition.errors import CheckpointError
from lightning_elche.partition.fs import Fs, Host, this_host
from lightning_elche.partition.gc import collect_garbage
from lightning_elche.partition.manifest import Manifest
from lightning_elche.partition.read_checkpoint import QUARANTINE, read_manifest
from lightning_elche.partition.store_names import parse_checkpoint_name, parse_owned_name
from lightning_elche.partition.store_placing import ARCHIVE

__all__ = ["ls"]

HEADS = "NAME", "SEQUENCE", "STEP", "CREATED", "BYTES", "WORLD", "REMARKS"


@dataclass(frozen=True, kw_only=True)
class _Item:
    name: str
    kind: str
    manifest: Manifest | None = None
    error: CheckpointError | None = None
    remark: str = ""

    @property
    def is_counted(self) -> bool:
        """Whether it should be right; what is in quarantine may be there because it is not."""
        return self.error is not None and self.kind != QUARANTINE

    @property
    def order(self) -> tuple[int, str]:
        return (-1 if self.manifest is None else self.manifest.sequence), self.name


def ls(options: argparse.Namespace) -> Outcome:
    """Return what is in a root, the newest at last.

    Raises:
        OSError: If the root cannot be read.
    """
    host, root = this_host(), place(options.path)
    items = sorted(_checkpoints(host.fs, root, "", "checkpoint"), key=lambda one: one.order)
    if options.all:
        items += _others(host, root)
    if not items:
        say(f"{root} has no checkpoints", options)
    wrong = [one for one in items if one.is_counted]
    rows = [HEADS, *map(_row, items)] if items else []
    return Outcome(
        lines=tuple(map(Line, table(rows))) if items else (),
        data={"root": str(root), "items": [_data(one) for one in items]},
        problems=tuple(
            Problem(str(root / one.name), type(one.error).__name__, str(one.error)) for one in wrong
        ),
        exit_code=worst(exit_code_of(one.error) for one in wrong if one.error is not None),
    )


def _checkpoints(fs: Fs, root: Path, below: str, kind: str) -> Iterator[_Item]:
    for name in fs.list_names(root / below):
        if kind == QUARANTINE or parse_checkpoint_name(name) is not None:
            path = root / below / name
            shown = str(path.relative_to(root))
            try:
                yield _Item(name=shown, kind=kind, manifest=read_manifest(fs, path))
            except CheckpointError as err:
                if fs.lexists(path):  # else it was removed meanwhile
                    yield _Item(name=shown, kind=kind, error=err)


def _others(host: Host, root: Path) -> Iterator[_Item]:
    fs = host.fs
    if fs.is_folder(root / ARCHIVE):
        for segment in fs.list_names(root / ARCHIVE):
            if fs.is_folder(root / ARCHIVE / segment):
                yield from _checkpoints(fs, root, f"{ARCHIVE}/{segment}", ARCHIVE)
    if fs.is_folder(root / QUARANTINE):
        yield from _checkpoints(fs, root, QUARANTINE, QUARANTINE)
    for fate in collect_garbage(host, root).fates:
        owned = parse_owned_name(fate.name)
        if owned is not None:
            machine = "this machine" if owned.is_of_host(host.owner) else "another machine"
            remark = f"of process {owned.pid} on {machine}: {fate.reason}"
            yield _Item(name=fate.name, kind=owned.kind, remark=remark)


def _row(item: _Item) -> tuple[str, ...]:
    known = item.manifest
    if known is None:
        return (item.name, *("-" for _ in HEADS[2:]), item.remark or _reason(item))
    size = str(_num_bytes(known))
    remarks = ", ".join(_remarks(known))
    numbers = str(known.sequence), str(known.step), known.created, size, str(known.world)
    return (item.name, *numbers, remarks)


def _reason(item: _Item) -> str:
    return f"{type(item.error).__name__}: {item.error}"


def _remarks(manifest: Manifest) -> Iterator[str]:
    if not manifest.finite:
        yield "not fit to resume from"
    if manifest.durability == "flush":
        yield "may not survive a power cut"


def _num_bytes(manifest: Manifest) -> int:
    return sum(file.bytes for file in manifest.files.values())


def _data(item: _Item) -> dict[str, object]:
    known = item.manifest
    facts = {} if known is None else _facts(known)
    error = None if item.error is None else str(item.error)
    return {"name": item.name, "kind": item.kind, "error": error, "remark": item.remark, **facts}


def _facts(manifest: Manifest) -> dict[str, object]:
    names = "step", "label", "sequence", "segment", "created", "world", "finite", "durability"
    return {**{name: getattr(manifest, name) for name in names}, "bytes": _num_bytes(manifest)}
