"""What differs between two checkpoints."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lightning_elche.partition.diff import CheckpointDiff, TensorDiff, diff_checkpoints
from lightning_elche.partition.fs import LocalFs
from lightning_elche.partition.image import HostTensor
from lightning_elche.partition.tree import encode_tree
from tests.partition.states import make_snapshot, make_store


def diff(root: Path, a: Any, b: Any, **options: Any) -> CheckpointDiff:
    """Compare two states, each the tensors of a model or a tree."""
    paths = []
    for name, state in (("a", a), ("b", b)):
        is_model = isinstance(state, list)
        own = {"groups": {"model": state}} if is_model else {"tree": encode_tree(state).data}
        saved = make_store(root / name).save(make_snapshot(1, value=0.0, **{**own, **options}))
        paths.append(saved.path)
    return diff_checkpoints(LocalFs(), *paths)


def values(*items: float, dtype: str = "float32") -> list[HostTensor]:
    return [HostTensor.of("w", np.array(items, dtype=dtype))]


def bits(code: str, *items: int) -> list[HostTensor]:
    width = 2 if code == "BF16" else 1
    data = b"".join(item.to_bytes(width, "little") for item in items)
    return [HostTensor(name="w", dtype=code, shape=(len(items),), data=memoryview(data))]


def test_equal_checkpoints_do_not_differ(tmp_path: Path) -> None:
    """NaN of equal bits are equal."""
    assert diff(tmp_path, values(1.0, math.nan), values(1.0, math.nan)).is_empty


def test_first_element_count_and_distance_are_told(tmp_path: Path) -> None:
    """The first row and element that differ, how many do, and by how much at most."""
    a = np.zeros(40_000, dtype=np.float32)
    b = a.copy()
    b[[20_000, 39_999]] = [0.5, -3.0]
    found = diff(tmp_path, [HostTensor.of("w", a)], [HostTensor.of("w", b)])
    assert found.tensors == (
        TensorDiff(name="model/w", reason="values", row=1, element=20_000, count=2, max_abs=3.0),
    )


@pytest.mark.parametrize(
    ("a", "b", "max_abs"),
    [
        (values(0.0), values(-0.0), 0.0),
        (values(2**62, dtype="int64"), values(2**62 - 1, dtype="int64"), 1.0),
        (values(255, dtype="uint8"), values(0, dtype="uint8"), 255.0),
        (values(1, dtype="bool"), values(0, dtype="bool"), 1.0),
        (values(3.0, dtype="complex64"), values(4j, dtype="complex64"), 5.0),
        (values(math.inf), values(1.0), math.inf),
        (bits("BF16", 0x3F80), bits("BF16", 0xC000), 3.0),
        (bits("F8_E4M3", 0x38, 0x7E), bits("F8_E4M3", 0x38, 0xFE), 896.0),
        (bits("F8_E4M3", 0x01), bits("F8_E4M3", 0x00), 2.0**-9),
        (bits("F8_E5M2", 0x7B), bits("F8_E5M2", 0x00), 57344.0),
        (bits("F8_E5M2", 0x7C), bits("F8_E5M2", 0x00), math.inf),
        (values(1.0, dtype="complex128"), values(2.0, dtype="complex128"), None),
    ],
)
def test_distance_is_that_of_the_values(
    tmp_path: Path, a: list[HostTensor], b: list[HostTensor], max_abs: float | None
) -> None:
    """Each type is compared as what it means; one that is stored as bytes only by its bits."""
    (found,) = diff(tmp_path, a, b).tensors
    assert (found.count, found.max_abs) == (1, max_abs)


def test_nan_in_one_of_them_is_no_distance(tmp_path: Path) -> None:
    """A NaN against a number is NaN, however close the rest is."""
    (found,) = diff(tmp_path, values(1.0, math.nan), values(1.5, 1.0)).tensors
    assert found.max_abs is not None
    assert math.isnan(found.max_abs)


def test_structure_is_compared(tmp_path: Path) -> None:
    """Tensors that one lacks, or that have another type or shape, are told as such."""
    base = np.zeros(6, dtype=np.float32)
    a = [HostTensor.of(name, base) for name in ("only", "type", "shape")]
    b = [HostTensor.of("type", base.view(np.int32)), HostTensor.of("shape", base.reshape(2, 3))]
    b.append(HostTensor.of("new", base))
    found = {one.name: one.reason for one in diff(tmp_path, a, b).tensors}
    assert found == {
        "model/only": "only in A",
        "model/type": "type",
        "model/shape": "shape",
        "model/new": "only in B",
    }


def test_paths_of_the_tree_are_told(tmp_path: Path) -> None:
    """Entries that differ, are missing, have another type or length are told by pointer."""
    a = {"same": 1, "value": [1, 2], "gone": 0, "type": 1, "len": [1], "z": 0.0, "t": (1, 2)}
    b = {"same": 1, "value": [1, 3], "new": 0, "type": 1.0, "len": [], "z": -0.0, "t": (1, 3)}
    assert diff(tmp_path, a, b).tree_paths == (
        "/value/1",
        "/gone",
        "/type",
        "/len",
        "/z",
        "/t/$tuple/1",
        "/new",
    )


def test_group_that_one_lacks_is_told(tmp_path: Path) -> None:
    """A checkpoint without optimizer lacks the tensors of it."""
    one, other = (make_store(tmp_path / name) for name in "ab")
    groups = {"model": values(0.0), "optimizer-0": values(0.0)}
    a = one.save(make_snapshot(1, groups=groups)).path
    b = other.save(make_snapshot(1, groups={"model": values(0.0)})).path
    found = diff_checkpoints(LocalFs(), a, b)
    assert [(t.name, t.reason) for t in found.tensors] == [("optimizer-0/w", "only in A")]
