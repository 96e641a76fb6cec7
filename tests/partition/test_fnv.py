"""FNV-1a fingerprints."""

from __future__ import annotations

import numpy as np
import pytest

from lightning_elche.partition.fnv import (
    fingerprint_columns,
    fnv1a,
    partition_binding,
    state_value,
)
from lightning_elche.partition.plan import PartitionAssignment, PartitionId, PartitionPlan

MODEL_W = ("model/w", 1, (0xB1EEFDE6DF8B0C15, 0xF469D41EBA3E7CC0))
MODEL_R = ("model/r", 2, (0xCF3205151776F0D2, 0x824EAA7DEA7E8E37))
PLAN = PartitionPlan.row_ranges(10, 3)


def test_hash_is_the_known_one() -> None:
    """The hash of a text is that of the published test suite."""
    assert fnv1a(b"foobar") == 0x85944171F73967E8


def test_hash_goes_on_from_a_hash() -> None:
    """Hashing in two parts equals hashing at once."""
    assert fnv1a(b"bar", fnv1a(b"foo")) == 0x85944171F73967E8


@pytest.mark.parametrize(
    ("step", "ids", "columns", "expected"),
    [
        (0, [], {}, 0x81D23FD7003C2305),
        (7, [1, 2], {"x": [1, -0.0], "y": [0.5, -2]}, 0x5FA77E3A86990B30),
        (7, [1, 2], {"x": [1, 0.0], "y": [0.5, -2]}, 0x14D32D04D415C7B0),
        (8, [1, 2], {"x": [1, -0.0], "y": [0.5, -2]}, 0x5625C3C64E4AF25F),
        (1, [], {"x": []}, 0x0F9C4AC61066B408),
    ],
    ids=["nothing", "minus zero", "plus zero", "another step", "no rows"],
)
def test_table_has_the_known_fingerprint(
    step: int, ids: list[int], columns: dict[str, list[float]], expected: int
) -> None:
    """The fingerprints of known tables are those of the definition."""
    assert fingerprint_columns(step, ids, columns) == expected


def test_table_fingerprint_takes_any_byte_order() -> None:
    """Values are hashed as they are, not as they lie in memory."""
    columns = {"x": np.array([1, -0.0], ">f4"), "y": np.array([0.5, -2], ">f4")}
    assert fingerprint_columns(7, np.array([1, 2], ">u8"), columns) == 0x5FA77E3A86990B30


@pytest.mark.parametrize(
    "columns", [{"y": [1], "x": [2]}, {"xy": [1], "": [2]}], ids=["swapped", "joined"]
)
def test_table_fingerprint_depends_on_each_name(columns: dict[str, list[float]]) -> None:
    """The same values under other names have another fingerprint."""
    assert fingerprint_columns(1, [0], columns) != fingerprint_columns(1, [0], {"x": [1], "y": [2]})


@pytest.mark.parametrize(
    ("step", "tensors", "expected"),
    [
        (0, [], 0x81D23FD7003C2305),
        (7, [MODEL_W], 0x2446483E9D8A8AF7),
        (7, [MODEL_W, MODEL_R], 0x379A88EF9D43845B),
    ],
    ids=["nothing", "one tensor", "two tensors"],
)
def test_state_has_the_known_value(
    step: int, tensors: list[tuple[str, int, tuple[int, int]]], expected: int
) -> None:
    """The fingerprints of known states are those of the definition."""
    assert state_value(step, tensors) == expected


@pytest.mark.parametrize(
    ("index", "start", "end", "expected"),
    [(1, 4, 7, 0x8339FCF4F51E864A), (2, 4, 7, 0x50D830CAB56986C9)],
)
def test_binding_is_the_known_one(index: int, start: int, end: int, expected: int) -> None:
    """The binding of a partition depends on its id, and is that of the definition."""
    assignment = PartitionAssignment(PartitionId(index), start, end)
    assert partition_binding(PLAN.sha256, assignment, 42, (1, 2)) == expected
