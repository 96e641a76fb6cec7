"""Records of the lanes of each tensor."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest

from lightning_elche.partition.errors import ReplayFormatError
from lightning_elche.partition.fs import LocalFs, this_host
from lightning_elche.partition.image import HostTensor
from lightning_elche.partition.replay_lanes import (
    LanesPoint,
    LanesRecord,
    LanesWriter,
    Moment,
    NamedLanes,
    first_other,
    read_lanes,
)
from lightning_elche.partition.replay_place import LocatedDivergence, other_rows
from lightning_elche.partition.rml import ROW_BYTES, tensor_lanes
from lightning_elche.partition.store import CheckpointStore
from lightning_elche.partition.store_snapshot import Snapshot
from lightning_elche.partition.tree import encode_tree

BIG = (1 << 64) - 1
HEADER = LanesRecord(segment="segment-0003", rank=1, world_size=2, restored_step=40, env={"a": 1})


def point(step: int, *lanes: int, moment: Moment = "after", sync_index: int = 0) -> LanesPoint:
    """Return a point of tensors `model/0`, `model/1` and so on."""
    tensors = [NamedLanes(f"model/{i}", 1, (lane, BIG)) for i, lane in enumerate(lanes)]
    return LanesPoint.of(moment, tensors, step=step, sync_index=sync_index, value=step + 1)


def written(*points: LanesPoint, header: LanesRecord = HEADER) -> bytes:
    lines: list[bytes] = []
    writer = LanesWriter(header, lines.append)
    for one in points:
        writer.append(one)
    return b"".join(lines)


def test_record_is_read_as_it_was_written() -> None:
    """Also when tensors come in later, as those of an optimizer do."""
    points = [point(1, 5), point(2, 5, BIG), point(2, 6, 7, moment="before", sync_index=9)]
    record = read_lanes(written(*points))
    assert list(record.points.values()) == points
    assert (record.rank, record.world_size, record.restored_step) == (1, 2, 40)
    assert (record.segment, record.env) == ("segment-0003", {"a": 1})


def test_names_are_written_once() -> None:
    """A point costs 16 bytes for each tensor, in base64, and some for its place."""
    assert written(point(1, 5), point(2, 5)).count(b"model/0") == 1


def test_point_that_is_taken_again_counts_as_the_last() -> None:
    """As at an attempt to average that was dropped."""
    record = read_lanes(written(point(1, 5, moment="before"), point(1, 6, moment="before")))
    assert [one.tensors[0].lanes[0] for one in record.points.values()] == [6]


def test_fingerprints_are_those_of_points_after_events() -> None:
    """What was handed in is not the state of the run."""
    record = read_lanes(written(point(1, 5, moment="before"), point(2, 6), point(3, 6)))
    assert [(one.step, one.value) for one in record.fingerprints()] == [(2, 3), (3, 4)]


def test_torn_last_line_is_dropped() -> None:
    """Its writer was killed; what is before it counts."""
    data = written(point(1, 5), point(2, 6))
    assert [one.step for one in read_lanes(data[:-1]).points.values()] == [1]


@pytest.mark.parametrize(
    ("old", "new", "line"),
    [
        (b'"elche-replay-lanes-1"', b'"other"', 1),
        (b'"env"', b'"enw"', 1),
        (b'["model/0", 1]', b'["model/0"]', 2),
        (b'"lanes": "', b'"lanes": "AAAA', 3),
        (b'"after"', b'"never"', 3),
        (b'{"point"', b'"point"', 3),
    ],
)
def test_bad_line_is_named(old: bytes, new: bytes, line: int) -> None:
    """All errors of a record are one type, with the number of the line."""
    with pytest.raises(ReplayFormatError) as caught:
        read_lanes(written(point(1, 5)).replace(old, new))
    assert caught.value.line == line


def test_empty_file_is_no_record() -> None:
    """Its first line is what is wrong."""
    with pytest.raises(ReplayFormatError, match="line 1"):
        read_lanes(b"")


def test_first_other_tensor_is_named_in_order() -> None:
    """A tensor that is only in one of them differs, too."""
    then, now = point(1, 5, 6, 7).tensors, point(1, 5, 8, 9).tensors
    assert first_other(then, now) == "model/1"
    assert first_other(then[:2], then) == "model/2"
    assert first_other(then, then) is None


def save(root: Path, step: int, values: np.ndarray) -> None:
    store = CheckpointStore(root, host=this_host())
    model = {"model": [HostTensor.of("w", values)]}
    tree = encode_tree({}).data
    store.save(Snapshot(step=step, groups=model, tree=tree, segment="a", run_id="r"))


def lanes_of(values: np.ndarray) -> NamedLanes:
    return NamedLanes("model/w", 4, tensor_lanes("model/w", "F32", values.shape, values))


def test_rows_are_found_in_the_checkpoint_of_that_step(tmp_path: Path) -> None:
    """The range holds all differences, counted in rows of 64 KiB."""
    values = np.zeros(4 * ROW_BYTES // 4, dtype=np.float32)
    save(tmp_path, 8, values)
    other = values.copy()
    other[[ROW_BYTES // 4, 3 * ROW_BYTES // 4 - 1]] = 1.0
    assert other_rows(LocalFs(), tmp_path, 8, lanes_of(values), other) == (1, 3)
    assert other_rows(LocalFs(), tmp_path, 9, lanes_of(values), other) is None


def test_checkpoint_of_another_state_tells_no_rows(tmp_path: Path) -> None:
    """It would name rows in which the expected run was not."""
    values = np.zeros(8, dtype=np.float32)
    save(tmp_path, 8, values + 1)
    assert other_rows(LocalFs(), tmp_path, 8, lanes_of(values), values + 2) is None


def test_divergence_tells_where_it_is_and_survives_pickling() -> None:
    """It is raised on one rank and may be read on another one."""
    error = LocatedDivergence(
        8, 1, 2, sync_index=3, rank=1, moment="before", tensor="model/w", rows=(1, 3)
    )
    text = (
        "replay diverged at step 8: expected 0x0000000000000001, got 0x0000000000000002 "
        "(before averaging event 3, rank 1, tensor 'model/w', rows 1 to 2)"
    )
    assert str(error) == str(pickle.loads(pickle.dumps(error))) == text
