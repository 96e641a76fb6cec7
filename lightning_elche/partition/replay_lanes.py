"""Records of the lanes of each tensor, from which a divergence is named that a fingerprint finds.

Beside the record of fingerprints there is one such file for each rank, since ranks can differ in
what each keeps for itself: 16 bytes for each tensor and point. Under averaging, a rank also records
what it hands in, before it is averaged with the rest: afterwards all ranks have the error, and
nothing tells whose it was.
"""

from __future__ import annotations

import base64
import json
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Literal, NamedTuple, TypeVar

from lightning_elche.partition.errors import ReplayFormatError
from lightning_elche.partition.fnv import Lanes, state_value
from lightning_elche.partition.replay import ReplayFingerprint
from lightning_elche.partition.rml import ALGORITHM, sum_lanes

__all__ = [
    "LanesPoint",
    "LanesRecord",
    "LanesWriter",
    "Moment",
    "NamedLanes",
    "fingerprint_of",
    "first_other",
    "read_lanes",
]

FORMAT = "elche-replay-lanes-1"
Moment = Literal["before", "after"]  # a rank's own state that it hands in; the state of a point
Key = tuple[Moment, int, int]
Layout = tuple[tuple[str, int], ...]
Result = TypeVar("Result")


class NamedLanes(NamedTuple):
    """The lanes of a tensor.

    Attributes:
        name: Its name with its group, such as "model/weight".
        num_rows: The number of its rows.
        lanes: Its lanes.
    """

    name: str
    num_rows: int
    lanes: Lanes


@dataclass(frozen=True)
class LanesPoint:
    """The lanes of a state; packed, since a run has many.

    Attributes:
        moment: When it was taken at an averaging event; "after" where there is none.
        sync_index: Number of the averaging event.
        step: The step.
        layout: Name and number of rows of each tensor, in the order of the row space.
        packed: Their lanes.
        value: The fingerprint, of points "after".
    """

    moment: Moment
    sync_index: int
    step: int
    layout: Layout
    packed: bytes
    value: int = 0

    @classmethod
    def of(
        cls,
        moment: Moment,
        tensors: Sequence[NamedLanes],
        *,
        step: int,
        sync_index: int,
        value: int = 0,
    ) -> LanesPoint:
        """Return the point of these lanes; the arguments are its attributes."""
        layout = tuple((one.name, one.num_rows) for one in tensors)
        lanes = [lane for one in tensors for lane in one.lanes]
        return cls(moment, sync_index, step, layout, struct.pack(f"<{len(lanes)}Q", *lanes), value)

    @property
    def key(self) -> Key:
        """What tells it from the other points of a run."""
        return self.moment, self.sync_index, self.step

    @property
    def tensors(self) -> list[NamedLanes]:
        """The lanes of each tensor."""
        lanes = struct.unpack(f"<{2 * len(self.layout)}Q", self.packed)
        pairs = zip(lanes[::2], lanes[1::2], strict=True)
        return [NamedLanes(*place, pair) for place, pair in zip(self.layout, pairs, strict=True)]

    def fingerprint(self) -> ReplayFingerprint:
        """Return the fingerprint of the state. Cost: some microseconds for each tensor."""
        return fingerprint_of(self.tensors, step=self.step, sync_index=self.sync_index)


@dataclass(frozen=True, kw_only=True)
class LanesRecord:
    """What one rank has recorded.

    Attributes:
        segment: Name of the record of fingerprints.
        rank: The rank.
        world_size: Number of ranks.
        restored_step: The step that the run went on from, `None` for one that started.
        env: What the numbers of this rank may depend on.
        points: The points in order; of one that was taken twice the last.
    """

    segment: str
    rank: int = 0
    world_size: int = 1
    restored_step: int | None = None
    env: Mapping[str, Any] = field(default_factory=dict)
    points: Mapping[Key, LanesPoint] = field(default_factory=dict)

    def fingerprints(self) -> list[ReplayFingerprint]:
        """Return the fingerprints of this rank, without their lanes."""
        return [
            ReplayFingerprint(point.step, point.value, sync_index=point.sync_index)
            for point in self.points.values()
            if point.moment == "after"
        ]


class LanesWriter:
    """Writes a record line by line.

    Args:
        record: What its first line says; its points are not written.
        write: Takes each line, and hands it on before it returns.
    """

    def __init__(self, record: LanesRecord, write: Callable[[bytes], object]) -> None:
        self._write = write
        self._layout: Layout = ()
        header = {
            "format": FORMAT,
            "algorithm": ALGORITHM,
            "segment": record.segment,
            "rank": record.rank,
            "world_size": record.world_size,
            "restored_step": record.restored_step,
            "env": dict(record.env),
        }
        self._line(header)

    def append(self, point: LanesPoint) -> None:
        """Write a point, and the names of its tensors if they are others than before."""
        if point.layout != self._layout:
            self._layout = point.layout
            self._line({"tensors": point.layout})
        packed = base64.b64encode(point.packed).decode()
        self._line({"point": point.key, "value": f"{point.value:#018x}", "lanes": packed})

    def _line(self, record: Mapping[str, object]) -> None:
        self._write(json.dumps(record, allow_nan=False).encode() + b"\n")


def read_lanes(data: bytes) -> LanesRecord:
    """Return what a file holds; a last line without its end is dropped.

    Raises:
        ReplayFormatError: If another line is not what it should be.
    """
    first, *others = data.split(b"\n")[:-1] or [b""]
    record = _read(1, first, _begun)
    points: dict[Key, LanesPoint] = {}
    layout: Layout = ()
    for number, line in enumerate(others, start=2):
        layout, point = _read(number, line, partial(_next, layout))
        if point is not None:
            points.pop(point.key, None)  # so that it comes last
            points[point.key] = point
    return replace(record, points=points)


def fingerprint_of(
    lanes: Sequence[NamedLanes], *, step: int, sync_index: int = 0
) -> ReplayFingerprint:
    """Return the fingerprint of a state at a step.

    Args:
        lanes: Of its tensors, in the order of the row space.
        step: The step.
        sync_index: Number of the averaging event.
    """
    total = sum_lanes(one.lanes for one in lanes)
    return ReplayFingerprint(step, state_value(step, lanes), total, sync_index)


def first_other(expected: Sequence[NamedLanes], actual: Sequence[NamedLanes]) -> str | None:
    """Return the name of the first tensor that differs or is not in both; `None` if none is."""
    then, now = ({one.name: one for one in side} for side in (expected, actual))
    names = dict.fromkeys([*then, *now])
    return next((name for name in names if then.get(name) != now.get(name)), None)


def _read(number: int, line: bytes, take: Callable[[Any], Result]) -> Result:
    try:
        return take(json.loads(line))
    except (LookupError, TypeError, ValueError, RecursionError, struct.error) as err:
        raise ReplayFormatError(number, f"it is no line of lanes: {err!r}") from err


def _begun(told: Mapping[str, Any]) -> LanesRecord:
    for key, known in (("format", FORMAT), ("algorithm", ALGORITHM)):
        if told[key] != known:
            raise ValueError(f"`{key}` must be {known!r}, got {told[key]!r}")
    restored = told["restored_step"]
    return LanesRecord(
        segment=str(told["segment"]),
        rank=int(told["rank"]),
        world_size=int(told["world_size"]),
        restored_step=None if restored is None else int(restored),
        env=dict(told["env"]),
    )


def _next(layout: Layout, told: Mapping[str, Any]) -> tuple[Layout, LanesPoint | None]:
    """Return the layout from a line on, and the point that it tells of, if it does."""
    if "tensors" in told:
        return tuple((str(name), int(rows)) for name, rows in told["tensors"]), None
    moment, sync_index, step = told["point"]
    if moment not in ("before", "after"):
        raise ValueError(f"the moment must be 'before' or 'after', got {moment!r}")
    packed = base64.b64decode(told["lanes"], validate=True)
    if len(packed) != 16 * len(layout):
        raise ValueError(f"there must be lanes of {len(layout)} tensors, got {len(packed)} bytes")
    value = int(told["value"], 16)
    return layout, LanesPoint(moment, int(sync_index), int(step), layout, packed, value)
