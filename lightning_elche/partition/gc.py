"""Removes what dead processes have left behind, and checkpoints beyond a number."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from lightning_elche.partition.errors import CheckpointError
from lightning_elche.partition.fs import Host
from lightning_elche.partition.publish import Publisher, remove_tree
from lightning_elche.partition.read_checkpoint import read_manifest, verify_checkpoint
from lightning_elche.partition.retention import Entry, Fate, decide_fates, entry_of
from lightning_elche.partition.store_config import StoreConfig
from lightning_elche.partition.store_names import (
    owned_name,
    parse_checkpoint_name,
    parse_owned_name,
)

__all__ = ["GcReport", "collect_garbage", "move_to_trash", "sweep"]

FOREIGN_AGE_S = 24 * 3600.0  # temporary folders of other machines; no save takes that long


@dataclass(frozen=True, kw_only=True)
class GcReport:
    """What a collection did, or would do.

    Attributes:
        fates: What becomes of each name in the root, sorted.
        failures: Names that could not be removed, and why.
    """

    fates: tuple[Fate, ...]
    failures: tuple[tuple[str, str], ...] = ()


def collect_garbage(
    host: Host, root: Path, *, config: StoreConfig | None = None, should_apply: bool = False
) -> GcReport:
    """Say what may be removed from a root, and remove it if that is asked for.

    Args:
        host: The file system, the clock and this process.
        root: Of the checkpoints.
        config: Checkpoints that it does not keep go, too; without it all stay.
        should_apply: Whether to remove, and not only say.
    """
    names = [name for name in host.fs.list_names(root) if host.fs.is_folder(root / name)]
    fates = [_fate_of_owned(host, root, name) for name in names if parse_owned_name(name)]
    fates += _fates_of_checkpoints(host, root, names, config)
    fates.sort(key=lambda fate: fate.name)
    failures = []
    for fate in fates:
        if fate.is_removed and should_apply:
            error = _remove(host, root, fate.name, config or StoreConfig())
            failures += [] if error is None else [(fate.name, error)]
    return GcReport(fates=tuple(fates), failures=tuple(failures))


def sweep(host: Host, root: Path) -> None:
    """Remove temporary folders of dead owners, as far as that is possible."""
    for name in host.fs.list_names(root):
        if parse_owned_name(name) and _fate_of_owned(host, root, name).is_removed:
            with contextlib.suppress(
                OSError
            ):  # another collection was first, or the next one tries
                remove_tree(host.fs, root / name)


def move_to_trash(host: Host, root: Path, name: str, publisher: Publisher) -> None:
    """Remove a checkpoint so that no moment shows a part of it under its name.

    Raises:
        OSError: If that fails; what is left is whole, or trash.
    """
    parsed = parse_checkpoint_name(name)
    trash = root / owned_name("trash", parsed.step if parsed else 0, host.owner, host.new_uuid())
    host.fs.rename(root / name, trash)
    publisher.sync_folder(root)  # before files go: else they may go, and the rename be undone
    remove_tree(host.fs, trash)


def _remove(host: Host, root: Path, name: str, config: StoreConfig) -> str | None:
    publisher = Publisher(fs=host.fs, is_durable=config.durability == "fsync")
    try:
        if parse_owned_name(name):
            remove_tree(host.fs, root / name)
        else:
            move_to_trash(host, root, name, publisher)
    except FileNotFoundError:
        return None  # another collection was first
    except OSError as err:
        return str(err)
    return None


def _fate_of_owned(host: Host, root: Path, name: str) -> Fate:
    owned = parse_owned_name(name)
    assert owned is not None
    if not owned.is_of_host(host.owner):
        return _fate_by_age(host, root, name)
    if not owned.is_of_boot(host.owner):
        return Fate(name, is_removed=True, reason="its owner ended with the machine's last run")
    if owned.kind == "trash" and owned.pid == host.owner.pid:
        return Fate(name, is_removed=True, reason="this process could not remove it before")
    if host.is_alive(owned.pid):
        return Fate(name, is_removed=False, reason=f"process {owned.pid} may still use it")
    return Fate(name, is_removed=True, reason=f"there is no process {owned.pid}")


def _fate_by_age(host: Host, root: Path, name: str) -> Fate:
    try:
        age_s = host.now() - host.fs.modified_at(root / name)
    except FileNotFoundError:
        return Fate(name, is_removed=False, reason="it has gone")
    is_old = age_s > FOREIGN_AGE_S
    reason = f"of another machine, changed {age_s / 3600.0:.1f} hours ago"
    return Fate(name, is_removed=is_old, reason=reason)


def _fates_of_checkpoints(
    host: Host, root: Path, names: Sequence[str], config: StoreConfig | None
) -> list[Fate]:
    entries: list[Entry] = []
    fates = []
    monitor = None if config is None else config.monitor
    for name in names:
        if parse_checkpoint_name(name) is None:
            continue
        try:
            entries.append(entry_of(read_manifest(host.fs, root / name), monitor))
        except CheckpointError as err:
            fates.append(Fate(name, is_removed=False, reason=f"left for inspection: {err}"))
    if config is None:
        stay = "no number of checkpoints to keep was given"
        return fates + [Fate(entry.name, is_removed=False, reason=stay) for entry in entries]
    decided = decide_fates(entries, config)
    spared = _newest_valid(host, root, entries) if any(one.is_removed for one in decided) else None
    for fate in decided:
        is_spared = fate.is_removed and fate.name == spared
        why = "the newest that is valid"
        fates.append(replace(fate, is_removed=False, reason=why) if is_spared else fate)
    return fates


def _newest_valid(host: Host, root: Path, entries: Sequence[Entry]) -> str | None:
    """Return the newest checkpoint that can be resumed from and read in full."""
    for entry in sorted(entries, key=lambda entry: entry.age_order, reverse=True):
        if entry.is_finite:
            with contextlib.suppress(CheckpointError):
                return verify_checkpoint(host.fs, root / entry.name).name
    return None
