"""Where a run has diverged from the recorded one: event, rank, tensor and rows."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from typing_extensions import override

from lightning_elche.partition.errors import CheckpointError, ReplayDivergence
from lightning_elche.partition.fs import Fs
from lightning_elche.partition.read_checkpoint import read_checkpoint
from lightning_elche.partition.replay_lanes import NamedLanes
from lightning_elche.partition.rml import ROW_BYTES, Bytes, bytes_of
from lightning_elche.partition.store_names import parse_checkpoint_name

__all__ = ["LocatedDivergence", "Rows", "other_rows"]

Rows = tuple[int, int]


@dataclass(eq=False, repr=False)
class LocatedDivergence(ReplayDivergence):
    """A fingerprint differs from the recorded one, and it is known of what.

    `sync_index` is the averaging event, and `moment` "before" if a rank differs in what it hands in
    there; `tensor` is the first one that differs, `rows` the range of its rows of 64 KiB that
    holds all differences, counted in the tensor. What is not known is `None`.
    """

    sync_index: int = 0
    rank: int = 0
    moment: str = "after"
    tensor: str | None = None
    rows: Rows | None = None

    @override
    def __str__(self) -> str:
        told = [f"{self.moment} averaging event {self.sync_index}", f"rank {self.rank}"]
        if self.tensor is not None:
            told.append(f"tensor {self.tensor!r}")
        if self.rows is not None:
            told.append(f"rows {self.rows[0]} to {self.rows[1] - 1}")
        return f"{super().__str__()} ({', '.join(told)})"


def other_rows(fs: Fs, root: Path, step: int, expected: NamedLanes, actual: Bytes) -> Rows | None:
    """Return the rows of a tensor that differ from the checkpoint of the expected run.

    Args:
        fs: The file system.
        root: Of the checkpoints of that run.
        step: The step.
        expected: The tensor as it was recorded.
        actual: Its bytes now.

    Returns:
        First row, and the row behind the last one; `None` without a checkpoint of that state.
    """
    group, _, tensor = expected.name.partition("/")
    for name in sorted(fs.list_names(root)):
        parsed = parse_checkpoint_name(name)
        if parsed is None or parsed.step != step:
            continue
        try:
            checkpoint = read_checkpoint(fs, root / name, groups=(group,))
        except (CheckpointError, KeyError):
            continue
        records = checkpoint.manifest.groups[group].tensors
        recorded = [one.lanes for one in records if one.slot.name == tensor]
        if recorded == [expected.lanes]:
            return _range(bytes_of(checkpoint.groups[group][tensor].data), bytes_of(actual))
    return None


def _range(then: np.ndarray, now: np.ndarray) -> Rows | None:
    if then.size != now.size:
        return None
    places = np.flatnonzero(then != now)
    return (int(places[0]) // ROW_BYTES, int(places[-1]) // ROW_BYTES + 1) if places.size else None
