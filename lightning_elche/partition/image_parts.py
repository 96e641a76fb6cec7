"""Which bytes of the file of a group belong to which partition."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from lightning_elche.partition.image import Layout
from lightning_elche.partition.manifest import row_space_order
from lightning_elche.partition.plan import PartitionAssignment, PartitionPlan
from lightning_elche.partition.rows import RowSpace, TensorCut, TensorEntry

__all__ = ["ImagePart", "cut_images", "row_space_of"]


@dataclass(frozen=True, kw_only=True)
class ImagePart:
    """A range of the file of a group.

    Attributes:
        partition: Whose it is; `None` for a group outside the row space.
        row_start: First row: in the row space, or else in the group.
        row_end: The row behind the last one.
        worker: Label of the worker that the partition is assigned to.
        offset: Of its first byte in the file of the group; the first part has the header, too.
        nbytes: Its length.
        cuts: The rows, tensor by tensor.
    """

    partition: int | None
    row_start: int
    row_end: int
    worker: str | None
    offset: int
    nbytes: int
    cuts: tuple[TensorCut, ...]


def row_space_of(layouts: Mapping[str, Layout]) -> RowSpace:
    """Return the rows that a plan assigns: those of the model, then those of the optimizers."""
    inside = row_space_order(layouts)
    return RowSpace(entry for name in inside for entry in _entries(name, layouts[name]))


def cut_images(
    layouts: Mapping[str, Layout], plan: PartitionPlan
) -> dict[str, tuple[ImagePart, ...]]:
    """Return the parts of each group; together they are its file.

    Args:
        layouts: Of all groups.
        plan: Assigns the rows of the row space.

    Raises:
        PartitionPlanError: If the plan is one for another number of rows.
    """
    total = row_space_of(layouts).num_rows
    plan.validate(total)
    assignments = plan.materialized(total)
    parts, first = {}, 0
    for name in row_space_order(layouts):
        rows = RowSpace(_entries(name, layouts[name]))
        parts[name] = _cut(layouts[name], rows, first, assignments)
        first += rows.num_rows
    for name in layouts.keys() - parts.keys():
        parts[name] = (_whole(layouts[name], RowSpace(_entries(name, layouts[name])), 0),)
    return parts


def _entries(group: str, layout: Layout) -> list[TensorEntry]:
    return [
        TensorEntry(group, slot.name, slot.dtype, slot.shape, slot.nbytes) for slot in layout.stored
    ]


def _cut(
    layout: Layout, rows: RowSpace, first: int, assignments: Sequence[PartitionAssignment]
) -> tuple[ImagePart, ...]:
    """Cut a group whose first row is row `first` of the row space."""
    last = first + rows.num_rows
    shares = [
        (one, max(one.row_start, first), min(one.row_end, last))
        for one in assignments
        if one.row_start < last and one.row_end > first
    ]
    offsets = {slot.name: slot.offset for slot in layout.stored}
    cuts = [tuple(rows.cuts(start - first, end - first)) for _, start, end in shares]
    starts = [offsets[cut[0].tensor.name] + cut[0].byte_start for cut in cuts]
    edges = [0, *starts[1:], layout.nbytes]
    parts = [
        ImagePart(
            partition=one.partition_id.value,
            row_start=start,
            row_end=end,
            worker=one.worker,
            offset=edges[i],
            nbytes=edges[i + 1] - edges[i],
            cuts=cuts[i],
        )
        for i, (one, start, end) in enumerate(shares)
    ]
    return tuple(parts) or (_whole(layout, rows, first),)


def _whole(layout: Layout, rows: RowSpace, first: int) -> ImagePart:
    """Return the only part of a group outside the row space, or of one without rows."""
    return ImagePart(
        partition=None,
        row_start=first,
        row_end=first + rows.num_rows,
        worker=None,
        offset=0,
        nbytes=layout.nbytes,
        cuts=tuple(rows.cuts(0, rows.num_rows)),
    )
