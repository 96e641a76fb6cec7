"""Partition plans."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightning_elche.partition import errors
from lightning_elche.partition.plan import (
    PartitionAssignment,
    PartitionId,
    PartitionMode,
    PartitionPlan,
    canonical_json,
)

Range = tuple[int, int, int]


def ranges(plan: PartitionPlan) -> list[Range]:
    """Return id, start and end of each assignment."""
    return [(a.partition_id.value, a.row_start, a.row_end) for a in plan.assignments]


def static(*assignments: Range) -> PartitionPlan:
    """Return a plan of any assignments."""
    made = tuple(PartitionAssignment(PartitionId(i), a, b) for i, a, b in assignments)
    return PartitionPlan(PartitionMode.STATIC_ROW_RANGES, made)


@pytest.mark.parametrize(
    ("rows", "count", "expected"),
    [
        (10, 3, [(0, 0, 4), (1, 4, 7), (2, 7, 10)]),
        (3, 5, [(0, 0, 1), (1, 1, 2), (2, 2, 3)]),
        (4, 4, [(0, 0, 1), (1, 1, 2), (2, 2, 3), (3, 3, 4)]),
        (4, 1, [(0, 0, 4)]),
        (0, 3, [(0, 0, 0)]),
    ],
)
def test_rows_are_split_evenly(rows: int, count: int, expected: list[Range]) -> None:
    """The first partitions get one row more, and none is empty unless all are."""
    assert ranges(PartitionPlan.row_ranges(rows, count)) == expected


@given(rows=st.integers(0, 500), count=st.integers(1, 60))
def test_even_plan_is_valid_and_even(rows: int, count: int) -> None:
    """Any number of rows is covered once, by partitions that differ by one row at most."""
    plan = PartitionPlan.row_ranges(rows, count)
    plan.validate(rows)
    sizes = {a.num_rows for a in plan.assignments}
    assert max(sizes) - min(sizes) <= 1
    assert plan.partition_count == max(min(rows, count), 1)


@pytest.mark.parametrize("count", [0, -1])
def test_plan_of_no_partitions_is_refused(count: int) -> None:
    """There is at least one partition."""
    with pytest.raises(errors.InvalidPartitionCount):
        PartitionPlan.row_ranges(10, count)
    with pytest.raises(errors.InvalidPartitionCount):
        PartitionPlan.balanced([1], count)


def test_negative_numbers_are_refused() -> None:
    """Numbers of rows and bytes are not negative."""
    with pytest.raises(ValueError, match="`rows` must be >= 0, got -1"):
        PartitionPlan.row_ranges(-1, 2)
    with pytest.raises(ValueError, match="`row_bytes` must be >= 0, got -2"):
        PartitionPlan.balanced([3, -2], 2)


@pytest.mark.parametrize(
    ("row_bytes", "count", "expected"),
    [
        ([8, 8, 8, 8], 2, [(0, 0, 2), (1, 2, 4)]),
        ([8, 1, 1, 8], 2, [(0, 0, 2), (1, 2, 4)]),
        ([100, 1, 1], 3, [(0, 0, 1), (1, 1, 3)]),
        ([2, 1, 2], 2, [(0, 0, 2), (1, 2, 3)]),
        ([1, 1, 100], 3, [(0, 0, 3)]),
        ([4, 4, 0, 0], 2, [(0, 0, 1), (1, 1, 4)]),
        ([0, 0, 4], 2, [(0, 0, 3)]),
        ([0, 0, 0], 2, [(0, 0, 3)]),
        ([], 2, [(0, 0, 0)]),
    ],
    ids=[
        "even",
        "uneven",
        "big first",
        "odd",
        "big last",
        "empty last",
        "empty first",
        "empty",
        "none",
    ],
)
def test_bytes_are_split_evenly(row_bytes: list[int], count: int, expected: list[Range]) -> None:
    """Cuts are at the rows with which the next share begins, and partitions are renumbered."""
    assert ranges(PartitionPlan.balanced(row_bytes, count)) == expected


@given(
    row_bytes=st.lists(st.sampled_from([0, 8, 256, 65536]), max_size=200),
    count=st.integers(1, 20),
)
def test_balanced_plan_is_valid_and_balanced(row_bytes: list[int], count: int) -> None:
    """No partition holds its share and a whole row more, and all rows are covered."""
    plan = PartitionPlan.balanced(row_bytes, count)
    plan.validate(len(row_bytes))
    held = [sum(row_bytes[a.row_start : a.row_end]) for a in plan.assignments]
    assert sum(held) == sum(row_bytes)
    assert max(held) < sum(row_bytes) / count + 65536


def test_balanced_plan_halves_what_row_ranges_does_not() -> None:
    """1000 full rows and 1000 short ones are 65.5 and 0.26 MB by rows, and equal by bytes."""
    row_bytes = np.repeat([65536, 256], 1000)

    def held(plan: PartitionPlan) -> list[int]:
        return [int(row_bytes[a.row_start : a.row_end].sum()) for a in plan.assignments]

    assert held(PartitionPlan.row_ranges(2000, 2)) == [65_536_000, 256_000]
    assert held(PartitionPlan.balanced(row_bytes, 2)) == [32_899_072, 32_892_928]


def test_single_process_plan_has_one_partition_of_all_rows() -> None:
    """The plan of one partition fits any number of rows."""
    plan = PartitionPlan.single_process()
    plan.validate(0)
    plan.validate(10)
    assert (plan.partition_count, plan.assignments) == (1, ())
    assert plan.materialized(10) == (PartitionAssignment(PartitionId(0), 0, 10),)


def test_workers_are_assigned_in_order() -> None:
    """Each partition gets the label at its place."""
    plan = PartitionPlan.row_ranges(2, 2).with_workers(["a", "b"])
    assert [a.worker for a in plan.assignments] == ["a", "b"]
    assert plan.has_worker_assignments
    assert not PartitionPlan.row_ranges(2, 2).has_worker_assignments


@pytest.mark.parametrize(
    ("plan", "labels", "assignments"),
    [
        (PartitionPlan.row_ranges(2, 2), ["a"], 2),
        (PartitionPlan.row_ranges(2, 2), ["a", "b", "c"], 2),
        (PartitionPlan.single_process(), ["a"], 0),
    ],
)
def test_other_number_of_workers_is_refused(
    plan: PartitionPlan, labels: list[str], assignments: int
) -> None:
    """There are as many labels as assignments, none for a single process."""
    with pytest.raises(errors.WorkerCountMismatch) as caught:
        plan.with_workers(labels)
    assert (caught.value.assignments, caught.value.workers) == (assignments, len(labels))


@pytest.mark.parametrize(
    ("plan", "text"),
    [
        (static(), "static partition plan covers 0 rows, expected 10"),
        (static((0, 1, 10)), "partition PartitionId(0) starts at row 1, expected 0"),
        (static((0, 0, 4), (1, 5, 10)), "partition PartitionId(1) starts at row 5, expected 4"),
        (static((0, 0, 4), (1, 3, 10)), "partition PartitionId(1) starts at row 3, expected 4"),
        (
            static((0, 0, 4), (1, 4, 3)),
            "partition PartitionId(1) ends at row 3, before its start at row 4",
        ),
        (
            static((0, 0, 4), (1, 4, 11)),
            "partition PartitionId(1) ends at row 11, beyond agent count 10",
        ),
        (
            static((0, 0, 4), (1, 4, 4), (2, 4, 10)),
            "partition PartitionId(1) has an empty row range",
        ),
        (static((0, 0, 4), (1, 4, 9)), "static partition plan covers 9 rows, expected 10"),
        (static((0, 0, 4), (0, 4, 10)), "partition PartitionId(0) is assigned more than once"),
    ],
)
def test_plan_that_does_not_cover_each_row_once_is_refused(plan: PartitionPlan, text: str) -> None:
    """Each fault of a plan is named with its partition."""
    with pytest.raises(errors.PartitionPlanError) as caught:
        plan.validate(10)
    assert str(caught.value) == text


@pytest.mark.parametrize(
    ("plan", "error"),
    [
        (static((0, 5, 2)), errors.NonContiguousRange),  # inverted as well
        (static((0, 0, 11), (1, 5, 6)), errors.RangeOutOfBounds),
        (static((0, 0, 10), (1, 10, 9)), errors.InvertedRange),
        (static((0, 0, 5), (0, 5, 5)), errors.EmptyRange),  # the id twice as well
        (static((0, 0, 5), (0, 5, 9)), errors.CoverageMismatch),
    ],
)
def test_first_fault_is_the_one_named(plan: PartitionPlan, error: type[Exception]) -> None:
    """Checks are made assignment by assignment in their order, then of all together."""
    with pytest.raises(errors.PartitionPlanError) as caught:
        plan.validate(10)
    assert type(caught.value) is error


def test_empty_range_is_valid_for_no_rows() -> None:
    """The plan of no rows is one empty partition."""
    static((0, 0, 0)).validate(0)


def test_plan_without_ranges_is_refused_even_for_no_rows() -> None:
    """No rows are one empty partition, not none."""
    with pytest.raises(errors.CoverageMismatch):
        static().validate(0)


def test_single_process_plan_with_assignments_is_refused() -> None:
    """A plan for one process has no assignments."""
    assignments = static((0, 0, 10)).assignments
    with pytest.raises(errors.SingleProcessHasAssignments):
        PartitionPlan(PartitionMode.SINGLE_PROCESS, assignments).validate(10)


def test_plan_has_the_known_digest() -> None:
    """The digest of ten rows in three partitions is that of the definition."""
    known = "1e0f9ae702cc6b577ab0347c9412fc6e622d7ba9cc0e06374141d5773b6e3786"
    assert PartitionPlan.row_ranges(10, 3).sha256 == known


def test_digest_depends_on_workers() -> None:
    """Two plans that differ in a worker only have different digests."""
    plan = PartitionPlan.row_ranges(10, 3)
    assert plan.with_workers("abc").sha256 != plan.sha256


def test_canonical_json_has_one_form() -> None:
    """Keys are sorted, there are no spaces, and letters are not escaped."""
    assert canonical_json({"b": [1, None], "a": "ü"}) == b'{"a":"\xc3\xbc","b":[1,null]}'


@pytest.mark.parametrize("value", [1.0, [1.0], {"a": {"b": (2.0,)}}])
def test_canonical_json_refuses_floats(value: object) -> None:
    """A float, wherever it is, has no single text."""
    assert json.dumps(value)
    with pytest.raises(TypeError, match="`value` must hold no floats"):
        canonical_json(value)


def test_id_prints_as_users_know_it() -> None:
    """An id says what it is, and ids are ordered by number."""
    assert str(PartitionId(7)) == "PartitionId(7)"
    assert PartitionId(2) < PartitionId(10)
