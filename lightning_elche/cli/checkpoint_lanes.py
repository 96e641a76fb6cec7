"""The first tensor in which two recorded runs differ."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from lightning_elche.callbacks.replay_files import lanes_record
from lightning_elche.cli.checkpoint_record import Record
from lightning_elche.partition.fs import Fs
from lightning_elche.partition.replay_lanes import Moment, first_other

__all__ = ["OtherTensor", "first_other_tensor"]

LANES_FILE = re.compile(r".*-lanes\.rank([0-9]{1,9})\.jsonl")


@dataclass(frozen=True, kw_only=True)
class OtherTensor:
    """A tensor that differs.

    Attributes:
        tensor: Its name with its group.
        rank: The rank whose tensor it is.
        moment: "before" if it is what the rank hands in at an averaging event, "after" otherwise.
        sync_index: Number of the averaging event.
        step: The step.
    """

    tensor: str
    rank: int
    moment: Moment
    sync_index: int
    step: int

    def __str__(self) -> str:
        when = f"{self.moment} averaging event {self.sync_index}, step {self.step}"
        return f"the first tensor is {self.tensor!r} of rank {self.rank} ({when})"

    @property
    def order(self) -> tuple[int, int, bool, int]:
        """Sorts by time, then by rank."""
        return self.sync_index, self.step, self.moment == "after", self.rank


def first_other_tensor(fs: Fs, expected: Record, actual: Record) -> OtherTensor | None:
    """Return the first tensor that differs, `None` if lanes of both runs do not tell it.

    Raises:
        ReplayFormatError: If a file of lanes is not one.
        OSError: If one cannot be read.
    """
    ranks = _ranks(fs, expected) & _ranks(fs, actual)
    found = (one for rank in ranks for one in _others(expected, actual, rank))
    return min(found, key=lambda one: one.order, default=None)


def _ranks(fs: Fs, record: Record) -> set[int]:
    matches = map(LANES_FILE.fullmatch, fs.list_names(record.path.parent))
    return {int(match[1]) for match in matches if match is not None}


def _others(expected: Record, actual: Record, rank: int) -> Iterator[OtherTensor]:
    """Yield the tensor that is the first at each point at which a rank differs."""
    a, b = (lanes_record(one.path.parent, one.segments, rank) for one in (expected, actual))
    if a is None or b is None:
        return
    for key, point in b.points.items():
        then = a.points.get(key)
        name = None if then is None else first_other(then.tensors, point.tensors)
        if name is not None:
            moment, sync_index, step = key
            yield OtherTensor(
                tensor=name, rank=rank, moment=moment, sync_index=sync_index, step=step
            )
