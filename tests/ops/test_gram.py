"""Inner products of long rows, to more digits than one float32 sum has."""

from __future__ import annotations

import pytest
import torch

from lightning_elche.ops.gram import GramBuffer


def buffer_of(rows: torch.Tensor) -> GramBuffer:
    buffer = GramBuffer(*rows.shape, rows.dtype, "cpu")
    for task, row in enumerate(rows):
        buffer.row(task).copy_(row)
    return buffer


def random_rows(num_tasks: int, numel: int, *, seed: int = 0) -> torch.Tensor:
    return torch.randn(num_tasks, numel, generator=torch.Generator().manual_seed(seed))


def cosine_error(rows: torch.Tensor) -> float:
    exact = rows.double() @ rows.double().T
    norms = exact.diagonal().sqrt()
    return float(((buffer_of(rows).gram() - exact) / torch.outer(norms, norms)).abs().max())


@pytest.mark.parametrize("numel", [1, 16_384, 40_000])
def test_products_are_exact_whatever_the_length(numel: int) -> None:
    """The zeros that fill the last block count nothing."""
    rows = torch.tensor([[1.0], [-2.0], [3.0]]).repeat(1, numel)
    expected = torch.tensor([[1.0, -2.0, 3.0], [-2.0, 4.0, -6.0], [3.0, -6.0, 9.0]]) * numel
    assert buffer_of(rows).gram().tolist() == expected.tolist()


def test_error_of_a_million_elements_is_small() -> None:
    """Below 1e-6 of the norms, also where all products have one sign."""
    assert cosine_error(random_rows(4, 1_000_000).abs()) < 1e-6


@pytest.mark.parametrize("precision", ["medium", "high"])
def test_lower_precision_of_the_user_does_not_count(precision: str) -> None:
    """The setting stays, and the products are as exact as before."""
    torch.set_float32_matmul_precision(precision)
    try:
        assert cosine_error(random_rows(3, 100_000)) < 1e-6
        assert torch.get_float32_matmul_precision() == precision
    finally:
        torch.set_float32_matmul_precision("highest")


def test_autocast_does_not_count() -> None:
    """Products and sums keep the type of the rows."""
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert cosine_error(random_rows(3, 100_000)) < 1e-6
        assert buffer_of(random_rows(3, 100)).combine([1.0, 1.0, 1.0]).dtype == torch.float32


@pytest.mark.parametrize(
    ("dtype", "value"),
    [
        (torch.float16, 60_000.0),  # its square is not a float16
        (torch.float32, 1e-23),  # its square is not a float32
        (torch.float32, 1e30),
        (torch.float64, 1e100),
    ],
)
def test_squares_beyond_the_type_are_not_lost(dtype: torch.dtype, value: float) -> None:
    """Too large ones and too small ones."""
    rows = torch.tensor([[value], [-value]], dtype=dtype)
    square = float(rows[0, 0].double() ** 2)
    assert buffer_of(rows).gram().tolist() == [[square, -square], [-square, square]]


def test_small_row_beside_a_large_one_is_not_lost() -> None:
    """Its square would be a denormal float32."""
    rows = torch.tensor([[1e-14, 0.0], [-1e-22, 1e-22]])
    gram = buffer_of(rows).gram()
    torch.testing.assert_close(float(gram[1, 1]), 2e-44, rtol=1e-5, atol=0.0)


def test_rows_that_are_not_finite_are_seen_in_the_products() -> None:
    """Nothing hides them."""
    gram = buffer_of(torch.tensor([[1.0, torch.nan], [1.0, 1.0]])).gram()
    assert gram.isfinite().tolist() == [[False, False], [False, True]]


def test_weighted_sum_of_rows() -> None:
    """In the type of the rows, over several parts of the columns."""
    rows = torch.tensor([[1.0], [2.0], [4.0]]).repeat(1, 70_000)
    combined = buffer_of(rows).combine([1.0, 0.5, -2.0])
    assert (len(combined), combined.unique().tolist()) == (70_000, [-6.0])


def test_first_rows_are_a_buffer_in_the_same_memory() -> None:
    """As needed for a window of fewer batches."""
    buffer = buffer_of(random_rows(3, 5))
    part = buffer.first(2)
    buffer.row(0).fill_(2.0)
    assert part.gram().shape == (2, 2)
    assert float(part.gram()[0, 0]) == 20.0


def test_no_elements_have_products_of_zero() -> None:
    """And an empty sum."""
    buffer = GramBuffer(2, 0, torch.float32, "cpu")
    assert buffer.gram().tolist() == [[0.0, 0.0], [0.0, 0.0]]
    assert buffer.combine([1.0, 1.0]).tolist() == []
