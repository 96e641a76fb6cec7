"""FNV-1a, 64 bits: fingerprints of small tables, of lists of lanes, and of partitions.

It takes bytes one by one and so is slow in Python (0.01 GB/s): large data are hashed by `rml`.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike

from lightning_elche.partition.plan import PartitionAssignment

__all__ = [
    "Lanes",
    "fingerprint_columns",
    "fnv1a",
    "partition_binding",
    "state_value",
]

OFFSET = 0xCBF29CE484222325
PRIME = 0x100000001B3
MASK = (1 << 64) - 1

Lanes = tuple[int, int]


def fnv1a(data: bytes, value: int = OFFSET) -> int:
    """Return the hash of `data`, going on from `value`.

    Cost: O(bytes), 0.1 us each.
    """
    for byte in data:
        value = ((value ^ byte) * PRIME) & MASK
    return value


def fingerprint_columns(step: int, ids: ArrayLike, columns: Mapping[str, ArrayLike]) -> int:
    """Return the fingerprint of a table.

    Cost: O(cells), about 1 us each.

    Args:
        step: The step.
        ids: The id of each row, unsigned 64 bits.
        columns: The values of each column, 32 bits; their sign of zero and NaN bits count.

    Example:
        >>> hex(fingerprint_columns(7, [1, 2], {"x": [1.0, -0.0], "y": [0.5, -2.0]}))
        '0x5fa77e3a86990b30'
    """
    row_ids = np.asarray(ids, dtype="<u8")
    value = fnv1a(_words(step, row_ids.size, len(columns)))
    value = fnv1a(row_ids.tobytes(), value)
    value = fnv1a(_names(columns), value)
    for column in columns.values():
        value = fnv1a(np.asarray(column, dtype="<f4").tobytes(), value)
    return value


def state_value(step: int, tensors: Sequence[tuple[str, int, Lanes]]) -> int:
    """Return the fingerprint of a state of tensors.

    Args:
        step: The step.
        tensors: Name, number of rows and lanes of each, in the order of the row space.
    """
    rows = [num_rows for _, num_rows, _ in tensors]
    lanes = [lane for _, _, pair in tensors for lane in pair]
    value = fnv1a(_words(step, sum(rows), len(tensors), *rows))
    value = fnv1a(_names(name for name, _, _ in tensors), value)
    return fnv1a(_words(*lanes), value)


def partition_binding(
    plan_sha256: str, assignment: PartitionAssignment, step: int, lanes: Lanes
) -> int:
    """Return the hash that binds the data of a partition to its place and step.

    Args:
        plan_sha256: Digest of the plan, in hexadecimal.
        assignment: The partition.
        step: The step.
        lanes: Lanes of its data.
    """
    place = assignment.partition_id.value, assignment.row_start, assignment.row_end
    return fnv1a(bytes.fromhex(plan_sha256) + _words(*place, step, *lanes))


def _words(*values: int) -> bytes:
    return struct.pack(f"<{len(values)}Q", *values)


def _names(names: Iterable[str]) -> bytes:
    return b"".join(name.encode() + b"\xff" for name in names)
