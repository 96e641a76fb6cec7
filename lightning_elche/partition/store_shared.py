"""What all ranks do to save one checkpoint together, and how each of them comes to know of it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import Any

from lightning_elche.partition import checkpoint_errors
from lightning_elche.partition.checkpoint_errors import (
    DivergentWriters,
    DurabilityUncertain,
    WriteFailed,
)
from lightning_elche.partition.manifest import encode_manifest
from lightning_elche.partition.read_manifest import parse_manifest
from lightning_elche.partition.store import CheckpointStore, Saved
from lightning_elche.partition.store_ranks import Message, RankSeal
from lightning_elche.partition.store_snapshot import Snapshot

__all__ = ["save_together", "set_aside_together"]

# Those that a save can end with, which are raised on all ranks as on the first.
TOLD = (DivergentWriters, DurabilityUncertain, WriteFailed)


def save_together(store: CheckpointStore, seal: RankSeal) -> Saved:
    """Save a checkpoint; every rank calls this, and gets or raises the same.

    Args:
        store: Of the root, which is one for all ranks.
        seal: Writes the rows of this rank.

    Raises:
        CheckpointError: As of `CheckpointStore.save`; also if a rank cannot be reached.
    """

    def save() -> Message:
        saved = store.save(seal.snapshot, make_seal=partial(_the_same, seal))
        return {
            "path": str(saved.path),
            "manifest": encode_manifest(saved.manifest).decode(),
            "is_new": saved.is_new,
            "evicted": saved.evicted,
        }

    told = _together(store, seal, save)
    manifest = parse_manifest(told["manifest"].encode(), told["path"])
    return Saved(
        path=Path(told["path"]),
        manifest=manifest,
        is_new=told["is_new"],
        evicted=tuple(told["evicted"]),
    )


def set_aside_together(store: CheckpointStore, seal: RankSeal) -> Path:
    """Write a checkpoint that is never resumed from; every rank calls this.

    Args:
        store: Of the root, which is one for all ranks.
        seal: Writes the rows of this rank.

    Raises:
        CheckpointError: As of `CheckpointStore.quarantine`; also if a rank cannot be reached.
    """

    def save() -> Message:
        return {"path": str(store.quarantine(seal.snapshot, make_seal=partial(_the_same, seal)))}

    return Path(_together(store, seal, save)["path"])


def _the_same(seal: RankSeal, _: Snapshot, *, is_sharded: bool) -> RankSeal:
    del is_sharded  # which it knows
    return seal


def _together(store: CheckpointStore, seal: RankSeal, save: Callable[[], Message]) -> Message:
    """Return what rank 0 tells of a save that it has ended."""
    if seal.peers.rank > 0:
        try:
            told = seal.follow(store.placing.publisher)
        except OSError as err:
            raise WriteFailed(str(store.root), str(err), errno=err.errno) from err
        if "kind" in told:
            raise getattr(checkpoint_errors, told["kind"])(**told["fields"])
        return told
    try:
        told = save()
    except Exception as err:
        with contextlib.suppress(OSError):  # then the others cannot be reached, and know by that
            seal.peers.swap(_node(err, store))
        raise
    with contextlib.suppress(OSError):  # it is in its place, whoever hears of it
        seal.peers.swap(told)
    return told


def _node(err: Exception, store: CheckpointStore) -> dict[str, Any]:
    if not isinstance(err, TOLD):
        err = WriteFailed(str(store.root), f"rank 0: {err!r}")
    own = {one.name: getattr(err, one.name) for one in fields(err)}
    return {"kind": type(err).__name__, "fields": own}
