"""Row multilinear fingerprints."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from lightning_elche.partition.rml import (
    ROW_BYTES,
    num_rows,
    row_keys,
    sum_lanes,
    tensor_lanes,
    tensor_salt,
)

MASK = (1 << 64) - 1
TIMES = 2000
Mutation = Callable[[NDArray[np.float32], np.random.Generator], None]


def python_mix(z: int) -> int:
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
    return z ^ (z >> 31)


def python_keys(seed: int) -> list[int]:
    keys = []
    for _ in range(8192):
        seed = (seed + 0x9E3779B97F4A7C15) & MASK
        keys.append(python_mix(seed) | 1)
    return keys


K0, K1 = python_keys(11), python_keys(12)


def python_lanes(
    name: str, dtype: str, shape: tuple[int, ...], data: bytes, first_row: int = 0
) -> tuple[int, int]:
    """Return the lanes as the definition reads, word by word."""
    text = name.encode() + b"\0" + dtype.encode() + b"\0" + ",".join(map(str, shape)).encode()
    salt = int.from_bytes(hashlib.sha256(text).digest()[:8], "little")
    data += bytes(-len(data) % 8)
    words = [int.from_bytes(data[i : i + 8], "little", signed=True) for i in range(0, len(data), 8)]
    lane0 = lane1 = 0
    for row in range(max(-(-len(words) // 8192), 1)):
        of_row = words[8192 * row : 8192 * row + 8192]
        low = sum(k * w for k, w in zip(K0, of_row, strict=False))
        high = sum(k * (w >> 32) for k, w in zip(K1, of_row, strict=False))
        number = first_row + row + 1
        inner0 = python_mix((low + number * 0x9E3779B97F4A7C15 + salt) & MASK)
        inner1 = python_mix((high + number * 0xD1B54A32D192ED03 + salt) & MASK)
        lane0 += python_mix((inner0 + high) & MASK)
        lane1 += python_mix((inner1 + low) & MASK)
    return lane0 & MASK, lane1 & MASK


def test_keys_are_the_known_ones() -> None:
    """The first and last keys of both streams are those of the definition."""
    keys = [hex(int(k) & MASK) for stream in row_keys() for k in (stream[0], stream[-1])]
    assert keys == [
        "0x50f5647d2380309d",
        "0xdce192ecc4115ca7",
        "0x943ff9fc99de8f03",
        "0xf061724f16ddf48f",
    ]


@pytest.mark.parametrize(
    ("name", "dtype", "shape", "array", "expected"),
    [
        (
            "model/w",
            "F32",
            (2, 2),
            np.array([[1, -0.0], [0.5, -2]], "<f4"),
            (0xB1EEFDE6DF8B0C15, 0xF469D41EBA3E7CC0),
        ),
        (
            "model/w",
            "F32",
            (2, 2),
            np.array([[1, 0.0], [0.5, -2]], "<f4"),
            (0xB5C98CFA33E60D3E, 0x1D53BF32102ED3A0),
        ),
        ("model/e", "F32", (0,), np.empty(0, "<f4"), (0x040B1874351B509D, 0xB6959D747C22EBB1)),
        (
            "model/r",
            "U8",
            (65544,),
            (np.arange(65544) % 251).astype("u1"),
            (0xCF3205151776F0D2, 0x824EAA7DEA7E8E37),
        ),
        (
            "model/n",
            "I64",
            (20000,),
            np.arange(-10000, 10000, dtype="<i8"),
            (0xDABFC9699051095D, 0x70845542C68A7CE6),
        ),
    ],
    ids=["minus zero", "plus zero", "empty", "two rows", "three rows"],
)
def test_lanes_are_the_known_ones(
    name: str,
    dtype: str,
    shape: tuple[int, ...],
    array: NDArray[np.generic],
    expected: tuple[int, int],
) -> None:
    """The lanes of known tensors are those of the definition, in numpy and word by word."""
    assert tensor_lanes(name, dtype, shape, array) == expected
    assert python_lanes(name, dtype, shape, array.tobytes()) == expected


def test_salt_is_the_known_one() -> None:
    """The salt of a tensor is the start of the digest of its name, type and shape."""
    assert tensor_salt("model/w", "F32", (2, 2)) == 0x551908A5271726CF


@pytest.mark.parametrize(
    ("num_bytes", "rows"), [(0, 1), (1, 1), (65536, 1), (65537, 2), (131072, 2), (131073, 3)]
)
def test_rows_are_of_64_kib(num_bytes: int, rows: int) -> None:
    """A tensor has a row for each 64 KiB it has begun, and at least one."""
    assert num_rows(num_bytes) == rows


@settings(max_examples=40)
@given(
    data=st.binary(max_size=40),
    zeros=st.sampled_from([0, 1, 7, 8, ROW_BYTES - 40, ROW_BYTES, 2 * ROW_BYTES - 7]),
    first_row=st.sampled_from([0, 1, 2**40]),
)
def test_numpy_equals_the_definition(data: bytes, zeros: int, first_row: int) -> None:
    """Any bytes at any row have the lanes that the definition gives them word by word."""
    data = data + bytes(zeros) + data
    assert tensor_lanes("g/t", "U8", (len(data),), data, first_row=first_row) == python_lanes(
        "g/t", "U8", (len(data),), data, first_row
    )


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_lanes_do_not_depend_on_the_kind_of_buffer(kind: Callable[[bytes], bytes]) -> None:
    """Any kind of buffer has the lanes of its bytes, empty or not."""
    assert tensor_lanes("model/e", "F32", (0,), kind(b"")) == (
        0x040B1874351B509D,
        0xB6959D747C22EBB1,
    )
    assert tensor_lanes("t", "U8", (9,), kind(b"123456789")) == python_lanes(
        "t", "U8", (9,), b"123456789"
    )


def test_lanes_do_not_depend_on_alignment() -> None:
    """Bytes at an odd address have the same lanes as a copy of them."""
    data = np.random.default_rng(0).bytes(3 * ROW_BYTES)
    assert tensor_lanes("t", "U8", (1,), memoryview(data)[3:]) == tensor_lanes(
        "t", "U8", (1,), data[3:]
    )


def test_lanes_do_not_depend_on_layout() -> None:
    """A transposed array has the lanes of its elements in C order."""
    array = np.arange(12, dtype="<i4").reshape(3, 4)
    assert tensor_lanes("t", "I32", (4, 3), array.T) == tensor_lanes(
        "t", "I32", (4, 3), array.T.tobytes()
    )


@pytest.mark.parametrize("parts", [1, 2, 3, 7, 64])
def test_lanes_add_up_over_parts(parts: int) -> None:
    """The lanes of parts at their rows, in any order, sum to those of the tensor."""
    data = np.random.default_rng(parts).bytes(64 * ROW_BYTES - 5)
    cuts = [64 * i // parts for i in range(parts + 1)]
    lanes = [
        tensor_lanes("t", "U8", (64,), data[a * ROW_BYTES : b * ROW_BYTES], first_row=a)
        for a, b in pairwise(cuts)
    ]
    assert sum_lanes(reversed(lanes)) == tensor_lanes("t", "U8", (64,), data)


@pytest.mark.parametrize(
    "other",
    [("model/v", "F32", (4,)), ("model/w", "I32", (4,)), ("model/w", "F32", (2, 2))],
    ids=["name", "dtype", "shape"],
)
def test_lanes_depend_on_identity(other: tuple[str, str, tuple[int, ...]]) -> None:
    """The same bytes under another name, type or shape have other lanes."""
    assert tensor_lanes(*other, bytes(16)) != tensor_lanes("model/w", "F32", (4,), bytes(16))


def flip_bits(count: int) -> Mutation:
    def flip(values: NDArray[np.float32], rng: np.random.Generator) -> None:
        bits = rng.choice(8 * values.nbytes, size=count, replace=False)
        for bit in bits.tolist():
            values.view(np.uint8)[bit // 8] ^= np.uint8(1 << bit % 8)

    return flip


def negate_two(values: NDArray[np.float32], rng: np.random.Generator) -> None:
    values[rng.choice(values.size, size=2, replace=False)] *= -1


def swap_two(values: NDArray[np.float32], rng: np.random.Generator) -> None:
    a, b = rng.choice(values.size, size=2, replace=False)
    values[[a, b]] = values[[b, a]]


def shift_two(values: NDArray[np.float32], rng: np.random.Generator) -> None:
    words = values.view(np.int64)
    a, b = rng.choice(words.size, size=2, replace=False)
    difference = rng.integers(1, 1 << 62)
    words[[a, b]] += np.array([difference, -difference])


def swap_rows(values: NDArray[np.float32], rng: np.random.Generator) -> None:
    rows = values.reshape(4, -1)
    a, b = rng.choice(4, size=2, replace=False)
    rows[[a, b]] = rows[[b, a]]


def permute(values: NDArray[np.float32], rng: np.random.Generator) -> None:
    start = rng.integers(0, values.size - 64)
    rng.shuffle(values[start : start + 64])


@pytest.mark.parametrize(
    "mutate",
    [
        flip_bits(1),
        flip_bits(2),
        flip_bits(3),
        negate_two,
        swap_two,
        shift_two,
        swap_rows,
        permute,
    ],
    ids=["flip 1", "flip 2", "flip 3", "negate 2", "swap 2", "+d -d", "swap rows", "permute"],
)
def test_no_change_is_missed(mutate: Mutation) -> None:
    """Of 2000 random changes of each kind to a tensor of four rows, each changes both lanes."""
    rng = np.random.default_rng(0)
    values = rng.standard_normal(4 * ROW_BYTES // 4, dtype=np.float32)
    shape = (values.size,)
    before = tensor_lanes("model/w", "F32", shape, values)
    misses = 0
    for _ in range(TIMES):
        changed = values.copy()
        mutate(changed, rng)
        after = tensor_lanes("model/w", "F32", shape, changed)
        misses += after[0] == before[0] or after[1] == before[1]
    assert misses == 0
