"""The published algorithm, from inner products alone."""

from __future__ import annotations

import math
import random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_elche import ops
from lightning_elche.exceptions import FlatSizeError, MixedTensorsError, NoGradientsError
from lightning_elche.ops.order import step_generator
from lightning_elche.ops.projection import (
    conflict_rate,
    count_conflicts,
    pcgrad,
    pcgrad_weights,
)
from tests.ops.published import Vector, dot, orders_of, published


def combine(*grads: Vector, step: int = 0) -> Vector:
    tensors = [torch.tensor(grad, dtype=torch.float64) for grad in grads]
    combined: Vector = pcgrad(tensors, generator=step_generator(0, step)).combined.tolist()
    return combined


@pytest.mark.parametrize("num_tasks", [2, 3, 4, 5, 6])
def test_result_is_that_of_the_published_algorithm(num_tasks: int) -> None:
    """In 200 random cases, with the same orders."""
    draw = random.Random(num_tasks)
    for step in range(200):
        # Few dimensions, so that most pairs are far from orthogonal.
        grads = [[draw.gauss(0.0, 1.0) for _ in range(4)] for _ in range(num_tasks)]
        expected = published(grads, orders_of(num_tasks, step))
        assert combine(*grads, step=step) == pytest.approx(expected, rel=1e-9, abs=1e-12)


def test_two_opposite_gradients_cancel() -> None:
    """Projected against what the other has become, one of the two would be left."""
    grads = [torch.tensor([3.0, -4.0]), torch.tensor([-3.0, 4.0])]
    result = pcgrad(grads, generator=step_generator(0, 0))
    assert result.combined.tolist() == [0.0, 0.0]
    assert (result.num_conflicts, conflict_rate(result.num_conflicts, 2)) == (1, 1.0)
    assert result.num_projections == 2


@settings(max_examples=50)
@given(
    st.lists(st.floats(-1e3, 1e3), min_size=3, max_size=3),
    st.lists(st.floats(-1e3, 1e3), min_size=3, max_size=3),
)
def test_two_tasks_are_never_hurt(first: Vector, second: Vector) -> None:
    """The result points away from neither gradient; with three tasks it may."""
    combined = combine(first, second)
    size = max(1.0, math.hypot(*first, *second)) ** 2
    assert dot(combined, first) >= -1e-9 * size
    assert dot(combined, second) >= -1e-9 * size


def test_three_tasks_may_be_hurt() -> None:
    """Which the algorithm does not promise to avoid; seen for one order of the tasks."""
    grads = [[1.0, 0.0, 0.0], [-1.0, 0.1, 0.0], [-1.0, -0.1, 0.1]]
    combined = [combine(*grads, step=step) for step in range(20)]
    assert min(dot(total, grad) for total in combined for grad in grads) < 0.0


@pytest.mark.parametrize("scale", [1e-15, 1e-7, 1e7, 1e15])
@pytest.mark.parametrize(("dtype", "rel"), [(torch.float64, 1e-12), (torch.float32, 1e-6)])
def test_scale_of_all_gradients_is_kept(scale: float, dtype: torch.dtype, rel: float) -> None:
    """pcgrad(k J) = k pcgrad(J): the guard against zeros is relative."""
    grads = [[1.0, 0.5], [-1.0, 0.25], [0.5, -1.0]]
    rows = [torch.tensor(grad, dtype=dtype) * scale for grad in grads]
    scaled = pcgrad(rows, generator=step_generator(0, 0)).combined
    unscaled = [value / scale for value in scaled.tolist()]
    assert unscaled == pytest.approx(combine(*grads), rel=rel, abs=rel)


def test_weights_without_conflict_are_exactly_one() -> None:
    """And so is the sum."""
    gram = torch.tensor([[2.0, 0.5], [0.5, 1.0]], dtype=torch.float64)
    weights, num_projections = pcgrad_weights(gram, generator=step_generator(0, 0))
    assert (weights.tolist(), num_projections) == ([1.0, 1.0], 0)
    assert combine([0.0, 0.0], [0.0, 0.0]) == [0.0, 0.0]


def test_zero_gradient_neither_projects_nor_counts() -> None:
    """Nor does one that is shorter than `eps` times the longest."""
    grads = [[1.0, 0.0], [-1.0, 1.0]]
    assert combine(*grads, [0.0, 0.0]) == pytest.approx(combine(*grads))
    gram = torch.tensor([[1.0, -1e-13], [-1e-13, 1e-26]], dtype=torch.float64)
    assert count_conflicts(gram) == 0
    assert count_conflicts(gram, eps=1e-14) == 1
    weights, num_projections = pcgrad_weights(gram, generator=step_generator(0, 0))
    assert weights.tolist() == [1.0 + 1e-13, 1.0]
    assert num_projections == 1  # the short one against the long one, not the other way


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_products_that_are_not_finite_give_weights_of_one(value: float) -> None:
    """So that the gradients pass as they are, and are noticed."""
    gram = torch.tensor([[1.0, -1.0], [-1.0, value]])
    weights, num_projections = pcgrad_weights(gram, generator=step_generator(0, 0))
    assert (weights.tolist(), num_projections) == ([1.0, 1.0], 0)
    bad = torch.tensor([value, 1.0])
    result = pcgrad([bad, -bad], generator=step_generator(0, 0))
    assert not bool(result.combined.isfinite().all())


def test_half_precision_keeps_its_type_and_its_shape() -> None:
    """Though it is combined in float32, where its squares do not overflow."""
    grads = [torch.full((2, 3), 300.0), torch.full((2, 3), -300.0)]
    grads[1][0] = 100.0
    halves = [grad.half() for grad in grads]
    result = pcgrad(halves, generator=step_generator(0, 0))
    expected = pcgrad(grads, generator=step_generator(0, 0)).combined
    assert (result.combined.dtype, result.combined.shape) == (torch.float16, (2, 3))
    torch.testing.assert_close(result.combined.float(), expected, rtol=1e-3, atol=0.0)


def test_tiny_gradients_are_projected_as_others() -> None:
    """Norms of 1e-23 have squares that float32 does not hold."""
    grads = [torch.tensor([1e-23, 0.0]), torch.tensor([-1e-23, 1e-23])]
    combined = pcgrad(grads, generator=step_generator(0, 0)).combined
    torch.testing.assert_close(combined * 1e23, torch.tensor([0.5, 1.5]))


def test_mean_divides_by_the_number_of_tasks() -> None:
    """The weights as well."""
    grads = [torch.tensor([1.0, 0.0]), torch.tensor([-1.0, 1.0])]
    result = pcgrad(grads, generator=step_generator(0, 0), reduction="mean")
    assert (result.combined.tolist(), result.weights.tolist()) == ([0.25, 0.75], [1.0, 0.75])


def test_one_gradient_stays_as_it_is() -> None:
    """Without conflict."""
    grad = torch.tensor([1.0, torch.nan])
    result = pcgrad([grad], generator=step_generator(0, 0))
    assert result.combined is grad
    assert (result.num_conflicts, conflict_rate(0, 1)) == (0, 0.0)


def test_conflicts_do_not_depend_on_the_order() -> None:
    """Each pair counts once, by the gradients as they were given; all pairs in conflict: n / 2."""
    gram = torch.tensor([[1.0, -0.1, -0.1], [-0.1, 1.0, -0.1], [-0.1, -0.1, 1.0]])
    assert count_conflicts(gram) == 3
    assert conflict_rate(3, 3) == 1.5


@pytest.mark.parametrize(
    ("grads", "error", "message"),
    [
        ([], NoGradientsError, "^no gradients available for aggregation$"),
        ([torch.ones(2), torch.ones(3)], FlatSizeError, r"got \(2,\) and \(3,\) \(tensor 1\)"),
        ([torch.ones(2), torch.ones(2).half()], MixedTensorsError, "share one dtype"),
    ],
)
def test_gradients_that_do_not_fit_are_refused(
    grads: list[torch.Tensor], error: type[Exception], message: str
) -> None:
    """Before anything is computed."""
    with pytest.raises(error, match=message):
        pcgrad(grads, generator=step_generator(0, 0))


def test_unknown_reduction_is_refused() -> None:
    """The message names the choices."""
    with pytest.raises(ValueError, match='`reduction` must be "sum" or "mean", got \'max\''):
        pcgrad([torch.ones(1)], generator=step_generator(0, 0), reduction="max")  # type: ignore[arg-type]


def test_global_random_numbers_stay() -> None:
    """Orders come from the generator that is given."""
    before = torch.get_rng_state()
    combine([1.0, 0.0], [-1.0, 1.0])
    assert torch.get_rng_state().equal(before)


def test_two_tasks_agree_with_torchjd() -> None:
    """Where there is no order of the tasks, both give the same weights."""
    torchjd = pytest.importorskip("torchjd.aggregation")
    generator = torch.Generator().manual_seed(0)
    for _ in range(50):
        rows = torch.randn(2, 4, generator=generator, dtype=torch.float64)
        gram = rows @ rows.T
        weights, _ = pcgrad_weights(gram, generator=step_generator(0, 0))
        torch.testing.assert_close(weights, torchjd.PCGradWeighting()(gram))


def test_public_names_of_the_package_are_its_functions() -> None:
    """Whichever module was imported before."""
    assert ops.pcgrad is pcgrad
    assert all(
        getattr(ops, name).__module__.startswith("lightning_elche.ops.") for name in ops.__all__
    )
