"""A state in memory that is to become a checkpoint."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from lightning_elche.partition.image import HostTensor, Layout, layout_of
from lightning_elche.partition.image_parts import row_space_of
from lightning_elche.partition.plan import PartitionPlan
from lightning_elche.partition.read_manifest import GROUP
from lightning_elche.partition.rows import RowSpace
from lightning_elche.partition.store_names import check_label

__all__ = ["Snapshot", "is_segment"]

SEGMENT = "[A-Za-z0-9][A-Za-z0-9._-]{0,63}"


def is_segment(name: str) -> bool:
    """Return whether this can be the name of a segment, and so of a folder."""
    return re.fullmatch(SEGMENT, name) is not None


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """A state in memory, with what its checkpoint says of it.

    Attributes:
        step: Of the state.
        groups: Tensors by the name of their group: "model", "optimizer-0" and so on; "aux"; a
            group that differs by rank has "@r" and the rank behind its name.
        tree: What `encode_tree` has made of the rest.
        segment: The stretch of the run between two resumptions.
        run_id: Of the run.
        sync_index: Number of averaging events so far.
        plan: Assigns the rows of model and optimizers.
        replay: Lines of the record of replay since `parent`.
        label: A labelled checkpoint is never evicted.
        parent: Name of the checkpoint before it.
        world: Number of ranks.
        num_hosts: Number of machines that write parts.
        is_sound: Whether nobody objects to resuming from it.
        env: Versions and devices.
        metrics: Last logged values.
        dropped: JSON pointers of hyperparameters that could not be stored.
    """

    step: int
    groups: Mapping[str, Sequence[HostTensor]]
    tree: bytes
    segment: str
    run_id: str
    sync_index: int = 0
    plan: PartitionPlan = field(default_factory=PartitionPlan.single_process)
    replay: bytes = b""
    label: str | None = None
    parent: str | None = None
    world: int = 1
    num_hosts: int = 1
    is_sound: bool = True
    env: Mapping[str, str | int | bool | None] = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)
    dropped: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Validate."""
        check_label(self.label)
        if not is_segment(self.segment):
            raise ValueError(
                "`segment` must have 1 to 64 letters, digits, dots, hyphens and underscores and "
                f"begin with a letter or digit, got {self.segment!r}."
            )
        for name in ("step", "sync_index"):
            if getattr(self, name) < 0:
                raise ValueError(f"`{name}` must be >= 0, got {getattr(self, name)}.")
        for name in self.groups:
            if not re.fullmatch(GROUP, name):
                raise ValueError(f"`groups` must have names like 'optimizer-0@r1', got {name!r}.")

    def layouts(self) -> dict[str, Layout]:
        """Return the layout of the file of each group."""
        return {name: layout_of(name, self.step, own) for name, own in self.groups.items()}

    def row_space(self) -> RowSpace:
        """Return the rows that `plan` assigns."""
        return row_space_of(self.layouts())
