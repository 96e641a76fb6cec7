"""NaN in tensors of any type."""

from __future__ import annotations

import numpy as np
import pytest

from lightning_elche.partition.image import HostTensor
from lightning_elche.partition.image_nan import has_nan


def of_bits(dtype: str, bits: int, size: int) -> HostTensor:
    data = bits.to_bytes(size, "little")
    return HostTensor(name="t", dtype=dtype, shape=(1,), data=memoryview(data))


@pytest.mark.parametrize(
    ("dtype", "size", "numbers", "nans"),
    [
        ("F64", 8, [0x7FF0 << 48, 0xFFF0 << 48], [0x7FF8 << 48, (0xFFF0 << 48) + 1]),
        ("F32", 4, [0x7F800000, 0xFF800000], [0x7F800001, 0xFFC00000]),
        ("F16", 2, [0x7C00, 0xFC00, 0x7BFF], [0x7C01, 0xFE00]),
        ("BF16", 2, [0x7F80, 0xFF80, 0x7F7F, 0x0001], [0x7F81, 0xFFC0]),
        ("F8_E5M2", 1, [0x7C, 0xFC, 0x7B], [0x7D, 0x7F, 0xFE]),
        ("F8_E4M3", 1, [0x7E, 0xFE, 0x78], [0x7F, 0xFF]),
        ("C64", 8, [0x7F800000], [0x7FC00000, 0x7FC00000 << 32]),
        ("I32", 4, [0x7FC00000, 0xFFFFFFFF], []),
        ("U8", 1, [0xFF], []),
        ("BOOL", 1, [1], []),
    ],
)
def test_nan_is_told_from_numbers_and_infinities(
    dtype: str, size: int, numbers: list[int], nans: list[int]
) -> None:
    """Bits of a NaN are found whatever their sign, and nothing else is."""
    assert not any(has_nan(of_bits(dtype, bits, size)) for bits in numbers)
    assert all(has_nan(of_bits(dtype, bits, size)) for bits in nans)


@pytest.mark.parametrize("at", [0, 65_535, 65_536, 199_999])
def test_nan_is_found_anywhere(at: int) -> None:
    """One NaN in a large tensor is enough."""
    array = np.zeros(200_000, dtype=np.float32)
    array[at] = np.nan
    assert has_nan(HostTensor.of("t", array))


def test_empty_tensor_has_none() -> None:
    """A tensor without items has no NaN."""
    assert not has_nan(HostTensor.of("t", np.empty((0, 3))))
