"""Small states, and what a store needs around it."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from lightning_elche.partition.fs import Fs, Host, LocalFs, Owner
from lightning_elche.partition.image import HostTensor
from lightning_elche.partition.read_checkpoint import Checkpoint
from lightning_elche.partition.store import CheckpointStore
from lightning_elche.partition.store_config import StoreConfig
from lightning_elche.partition.store_snapshot import Snapshot
from lightning_elche.partition.tree import encode_tree

OWNER = Owner("here", "boot", 100)
NOW = 1_800_000_000.0  # 2027-01-15T08:00:00+00:00


def make_tensor(name: str, value: float, *, size: int = 3) -> HostTensor:
    return HostTensor.of(name, np.full(size, value, dtype=np.float32))


def make_snapshot(step: int, *, value: float | None = None, **options: Any) -> Snapshot:
    """A state whose only weight is `value`, by default its step."""
    groups = {"model": [make_tensor("w", float(step) if value is None else value)]}
    fields = {"groups": groups, "tree": encode_tree({"epoch": step}).data}
    return Snapshot(step=step, **{**fields, "segment": "s0", "run_id": "r0", **options})


def make_host(
    fs: Fs | None = None,
    *,
    owner: Owner = OWNER,
    now: float = NOW,
    is_alive: Callable[[int], bool] = lambda _: False,
) -> Host:
    numbers = itertools.count(int(owner.pid) << 8)
    return Host(
        fs=fs or LocalFs(),
        owner=owner,
        now=lambda: now,
        new_uuid=lambda: f"{next(numbers):08x}",
        is_alive=is_alive,
    )


def make_store(
    root: Path, fs: Fs | None = None, *, pid: int = 100, **options: Any
) -> CheckpointStore:
    host = make_host(fs, owner=Owner("here", "boot", pid))
    return CheckpointStore(root, host=host, config=StoreConfig(**options))


def weight_of(checkpoint: Checkpoint) -> float:
    """The only weight of a state from `make_snapshot`, if all of its elements are equal."""
    (value,) = set(checkpoint.groups["model"]["w"].array().tolist())
    return float(value)


def names_in(root: Path) -> list[str]:
    return sorted(path.name for path in root.iterdir())
