"""The row space of tensors."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_elche.partition.errors import ReassemblyError
from lightning_elche.partition.fnv import partition_binding
from lightning_elche.partition.plan import PartitionPlan
from lightning_elche.partition.rml import ROW_BYTES, sum_lanes
from lightning_elche.partition.rows import RowSpace, TensorEntry, TensorRows

W = TensorEntry("model", "w", "F32", (2, 2), 16)
R = TensorEntry("model", "r", "U8", (65544,), 65544)
E = TensorEntry("model", "e", "F32", (0,), 0)
M = TensorEntry("optimizer-0", "w.exp_avg", "F32", (2, 2), 16)
SPACE = RowSpace([W, R, E, M])
DATA = {
    "model/w": np.array([[1, -0.0], [0.5, -2]], "<f4"),
    "model/r": (np.arange(65544) % 251).astype("u1"),
    "model/e": b"",
    "optimizer-0/w.exp_avg": bytes(range(16)),
}


def rows() -> TensorRows:
    return TensorRows.of_tensors(SPACE, DATA)


def test_each_tensor_has_rows_of_its_own() -> None:
    """Rows do not span tensors; one without bytes has an empty row."""
    assert SPACE.num_rows == 5
    assert SPACE.row_bytes.tolist() == [16, 65536, 8, 0, 16]


def test_cuts_name_the_rows_of_each_tensor() -> None:
    """A range of rows is some rows of some tensors."""
    cuts = [(c.tensor.name, c.first_row, c.num_rows, c.byte_end) for c in SPACE.cuts(2, 5)]
    assert cuts == [("r", 1, 1, 65544), ("e", 0, 1, 0), ("w.exp_avg", 0, 1, 16)]


@settings(max_examples=50)
@given(
    sizes=st.lists(st.sampled_from([0, 5, ROW_BYTES, ROW_BYTES + 1, 3 * ROW_BYTES]), max_size=12),
    count=st.integers(1, 6),
)
def test_plans_cut_all_bytes_once(sizes: list[int], count: int) -> None:
    """The cuts of any plan's partitions follow each other, from the first byte to the last."""
    space = RowSpace(TensorEntry("g", str(i), "U8", (n,), n) for i, n in enumerate(sizes))
    plan = PartitionPlan.balanced(space.row_bytes, count)
    cuts = [cut for one in plan.assignments for cut in space.cuts(one.row_start, one.row_end)]
    ends = dict.fromkeys((cut.tensor.name for cut in cuts), 0)
    for cut in cuts:
        assert cut.byte_start == ends[cut.tensor.name]
        ends[cut.tensor.name] = cut.byte_end
    assert (space.num_rows, list(ends.values())) == (len(space.row_bytes), sizes)


def test_space_without_tensors_has_no_rows() -> None:
    """Nothing is a row space, too."""
    assert (RowSpace([]).num_rows, RowSpace([]).row_bytes.tolist()) == (0, [])
    assert TensorRows.of_tensors(RowSpace([]), {}).fingerprint(0).value == 0x81D23FD7003C2305


@pytest.mark.parametrize(
    ("tensors", "text"),
    [([W, W], "different names, got 'model/w' twice"), ([W, M, R], "must come group by group")],
)
def test_tensors_in_disorder_are_refused(tensors: list[TensorEntry], text: str) -> None:
    """Names are unique, and the tensors of a group stand together."""
    with pytest.raises(ValueError, match=text):
        RowSpace(tensors)


@pytest.mark.parametrize(
    ("tensors", "value"), [([W], 0x2446483E9D8A8AF7), ([W, R], 0x379A88EF9D43845B)]
)
def test_state_has_the_known_fingerprint(tensors: list[TensorEntry], value: int) -> None:
    """The fingerprints of known tensors at step 7 are those of the definition."""
    assert TensorRows.of_tensors(RowSpace(tensors), DATA).fingerprint(7).value == value


@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_parts_make_up_the_state(count: int) -> None:
    """Rows that were cut and put together have the fingerprint and the lanes of the whole."""
    whole = rows()
    parts = [
        whole.slice(a.row_start, a.row_end)
        for a in PartitionPlan.row_ranges(whole.num_rows, count).assignments
    ]
    again = whole.concat(parts)
    assert again.fingerprint(7) == whole.fingerprint(7)
    assert sum_lanes(part.fingerprint(7).lanes for part in parts) == whole.fingerprint(7).lanes


def test_slice_of_a_slice_is_counted_from_its_first_row() -> None:
    """Rows of rows are those of the whole."""
    part = rows().slice(1, 5).slice(1, 3)
    assert part.row_ids.tolist() == [2, 3]
    assert part.fingerprint(1) == rows().slice(2, 4).fingerprint(1)


def test_part_has_bytes_of_its_own() -> None:
    """What is done to a part does not reach the state, even if that cannot be written."""
    whole = rows()
    part = whole.slice(4, 5)
    part.tensor("optimizer-0/w.exp_avg")[:] = 0
    assert whole.tensor("optimizer-0/w.exp_avg").tolist() == list(range(16))


def test_tensor_that_is_not_there_is_refused() -> None:
    """Only tensors with rows in a part can be asked for."""
    with pytest.raises(KeyError, match="model/w"):
        rows().slice(4, 5).tensor("model/w")


def test_bytes_make_up_the_rows() -> None:
    """Rows that went through bytes are the same, and can be changed."""
    part = rows().slice(1, 5)
    again = part.with_bytes(part.to_bytes())
    assert len(part.to_bytes()) == part.num_bytes == 65560
    assert again.fingerprint(1) == part.fingerprint(1)
    again.tensor("model/r")[0] = 1


@pytest.mark.parametrize("size", [15, 17])
def test_bytes_of_another_size_are_refused(size: int) -> None:
    """Bytes are those of the same rows."""
    with pytest.raises(ValueError, match=f"`data` must be 16 bytes, got {size}"):
        rows().slice(0, 1).with_bytes(bytes(size))
    with pytest.raises(ValueError, match=rf"`data` must hold \[16\] bytes, got \[{size}\]"):
        TensorRows.of_tensors(RowSpace([W]), {"model/w": bytes(size)})


def test_parts_with_a_gap_are_refused() -> None:
    """Parts follow each other."""
    whole = rows()
    with pytest.raises(ReassemblyError, match="rows from 3 on follow rows to 2"):
        whole.concat([whole.slice(0, 2), whole.slice(3, 5)])


def test_binding_holds_lanes_of_a_part() -> None:
    """The binding of a part changes with a bit of its rows."""
    plan = PartitionPlan.row_ranges(5, 2)
    part = rows().slice(0, 3)
    before = partition_binding(plan.sha256, plan.assignments[0], 7, part.fingerprint(7).lanes)
    part.tensor("model/r")[65543] ^= 1
    after = partition_binding(plan.sha256, plan.assignments[0], 7, part.fingerprint(7).lanes)
    assert before != after
