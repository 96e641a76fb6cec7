"""Weighted averaging of parameters and buffers."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from lightning_elche.distributed.averager import Averager, Exchange
from lightning_elche.exceptions import RankMismatch
from tests.distributed.threads import FakeGroup, average_by, outcomes_of, run_ranks


def averaged(
    params: Sequence[Sequence[Tensor]],
    weights: Sequence[float],
    *,
    buffers: Sequence[Sequence[Tensor]] | None = None,
) -> list[Exchange]:
    """Average the tensors of every rank in place and return what each exchange did."""
    group = FakeGroup(len(weights))

    def average(rank: int) -> Exchange:
        own_buffers = buffers[rank] if buffers is not None else []
        return average_by(Averager(params[rank], own_buffers, group.of(rank)), weights)

    return run_ranks(len(weights), average)


def column(*values: object, dtype: torch.dtype = torch.float32) -> list[list[Tensor]]:
    """Return one tensor per rank, each alone in its rank's list."""
    return [[torch.tensor(value, dtype=dtype)] for value in values]


def test_parameters_are_weighted_by_samples() -> None:
    """30 samples at 1.0 and 10 at 5.0 average to 2.0."""
    params = column([1.0], [5.0])
    averaged(params, [30.0, 10.0])
    assert [p[0].item() for p in params] == [2.0, 2.0]


def test_equal_weights_give_the_mean() -> None:
    """Equal weights, of any size, give the plain mean."""
    params = column([1.0, 8.0], [3.0, 0.0])
    averaged(params, [7.0, 7.0])
    assert params[0][0].tolist() == [2.0, 4.0]


def test_every_parameter_is_averaged_in_its_own_shape() -> None:
    """Tensors of any shape, scalars and non-contiguous ones included, keep their places."""
    params = [
        [torch.tensor(float(r)), torch.full((2, 3), 10.0 * r).t(), torch.tensor([[r, 4.0 * r]])]
        for r in range(2)
    ]
    averaged(params, [1.0, 3.0])
    assert params[0][0].item() == 0.75
    assert params[0][1].tolist() == [[7.5, 7.5]] * 3
    assert params[0][2].tolist() == [[0.75, 3.0]]


def test_all_ranks_are_bit_equal_afterwards() -> None:
    """Whatever the values and weights, replicas hold the same bits after an exchange."""
    params = [
        [torch.randn(1000, generator=torch.Generator().manual_seed(rank))] for rank in range(3)
    ]
    averaged(params, [1.0, 3.0, 10.0])
    assert all(torch.equal(own[0], params[0][0]) for own in params)


def test_rank_of_weight_zero_adopts_the_average() -> None:
    """A rank with nothing to contribute takes over what the others have."""
    params = column([1.0], [100.0], [3.0])
    averaged(params, [1.0, 0.0, 1.0])
    assert [p[0].item() for p in params] == [2.0, 2.0, 2.0]


@pytest.mark.parametrize("poison", [math.nan, math.inf])
def test_rank_of_weight_zero_does_not_poison_the_average(poison: float) -> None:
    """Even parameters and buffers that are not finite do not spread from such a rank."""
    params, buffers = column([1.0], [poison], [3.0]), column([4.0], [poison], [6.0])
    averaged(params, [1.0, 0.0, 1.0], buffers=buffers)
    assert [p[0].item() for p in params] == [2.0, 2.0, 2.0]
    assert [b[0].item() for b in buffers] == [5.0, 5.0, 5.0]


def test_rank_with_a_weight_does_poison_the_average() -> None:
    """NaN of a contributing rank is not hidden."""
    params = column([1.0], [math.nan])
    averaged(params, [1.0, 1e-9])
    assert all(math.isnan(p[0].item()) for p in params)


def test_one_contributor_is_copied_exactly() -> None:
    """With one weight all ranks hold that rank's bits, as at the start of a run."""
    value = torch.randn(1000, generator=torch.Generator().manual_seed(0))
    params = [[value.clone()], [torch.full((1000,), math.nan)]]
    averaged(params, [1.0, 0.0])
    assert torch.equal(params[1][0], value)
    assert torch.equal(params[0][0], value)


def test_float_buffers_have_equal_weight() -> None:
    """Buffers are averaged over ranks, not over samples."""
    buffers = column([0.0], [8.0])
    averaged(column([0.0], [8.0]), [3.0, 1.0], buffers=buffers)
    assert [b[0].item() for b in buffers] == [4.0, 4.0]


def test_float_buffers_count_contributors_only() -> None:
    """A rank of weight 0 has no say in buffers either."""
    buffers = column([2.0], [4.0], [900.0])
    averaged(column([0.0], [0.0], [0.0]), [5.0, 1.0, 0.0], buffers=buffers)
    assert [b[0].item() for b in buffers] == [3.0, 3.0, 3.0]


def test_integer_buffers_take_the_maximum() -> None:
    """Counters such as the batches that a BatchNorm has seen take the largest value."""
    buffers = column([7, -3], [5, -2], dtype=torch.int64)
    averaged(column([0.0], [0.0]), [1.0, 1.0], buffers=buffers)
    assert [b[0].tolist() for b in buffers] == [[7, -2], [7, -2]]


def test_integer_buffers_count_contributors_only() -> None:
    """A rank of weight 0 adopts the maximum of the others, negative ones included."""
    buffers = column([-7], [99], dtype=torch.int32)
    averaged(column([0.0], [0.0]), [1.0, 0.0], buffers=buffers)
    assert [b[0].tolist() for b in buffers] == [[-7], [-7]]


def test_bool_buffers_are_true_where_one_is() -> None:
    """The maximum of flags is their disjunction, in their own type."""
    buffers = column([True, False], [False, False], dtype=torch.bool)
    averaged(column([0.0], [0.0]), [1.0, 1.0], buffers=buffers)
    assert buffers[1][0].tolist() == [True, False]


def test_bfloat16_is_accumulated_in_float32() -> None:
    """The mean of 256 and three times 258 is 257.5, hence 258; summing in bfloat16 gives 256."""
    params = column([256.0], [258.0], [258.0], [258.0], dtype=torch.bfloat16)
    averaged(params, [1.0] * 4)
    assert [p[0].item() for p in params] == [258.0] * 4
    assert params[0][0].dtype == torch.bfloat16


def test_float64_keeps_its_precision() -> None:
    """Doubles are averaged as doubles."""
    params = column([1.0], [1.0 + 2.0**-40], dtype=torch.float64)
    averaged(params, [1.0, 1.0])
    assert params[0][0].item() == 1.0 + 2.0**-41


def test_mixed_types_are_averaged_together() -> None:
    """A model may hold several types; each is averaged, with one collective per wire type."""
    params = [
        [torch.full((2,), float(r)), torch.full((2,), float(r), dtype=torch.float64)]
        for r in range(2)
    ]
    exchange = averaged(params, [1.0, 1.0])[0]
    assert [p.tolist() for p in params[0]] == [[0.5, 0.5], [0.5, 0.5]]
    assert exchange.exchanged_bytes == 2 * 4 + 2 * 8


def test_half_types_travel_in_four_bytes() -> None:
    """The size is that of the flat buffers on the wire, buffers of the model included."""
    buffers = column([1.0], [1.0], dtype=torch.float16)
    exchange = averaged(column([1.0], [1.0], dtype=torch.bfloat16), [1.0, 1.0], buffers=buffers)
    assert exchange[0].exchanged_bytes == 8


def test_delta_is_the_relative_distance_to_the_average() -> None:
    """Ranks at (0, 0) and (6, 8) average to (3, 4), each as far away as it is long."""
    exchanges = averaged(column([0.0, 0.0], [6.0, 8.0]), [1.0, 1.0])
    assert [e.relative_delta for e in exchanges] == [1.0, 1.0]


def test_delta_differs_between_ranks() -> None:
    """The rank with the larger weight is nearer to the average of 3.0."""
    exchanges = averaged(column([0.0], [4.0]), [1.0, 3.0])
    assert [e.relative_delta for e in exchanges] == pytest.approx([1.0, 1 / 3])


def test_delta_leaves_buffers_out() -> None:
    """Running statistics differ without the model diverging."""
    exchanges = averaged(column([2.0], [2.0]), [1.0, 1.0], buffers=column([0.0], [50.0]))
    assert [e.relative_delta for e in exchanges] == [0.0, 0.0]


def test_delta_of_zero_parameters_is_zero() -> None:
    """An average of length zero divides by nothing."""
    exchanges = averaged(column([0.0], [0.0]), [1.0, 1.0])
    assert exchanges[0].relative_delta == 0.0


def test_model_without_tensors_exchanges_nothing() -> None:
    """Nothing to average is no error."""
    exchange = averaged([[], []], [1.0, 1.0])[0]
    assert exchange == Exchange(exchanged_bytes=0, relative_delta=0.0)


def test_parameters_with_gradients_are_averaged_without_a_graph() -> None:
    """Averaging is not recorded by autograd."""
    params = [[torch.nn.Parameter(torch.tensor([2.0 * r]))] for r in range(2)]
    averaged(params, [1.0, 1.0])
    assert params[0][0].item() == 1.0
    assert params[0][0].grad_fn is None


def test_averager_can_be_used_again() -> None:
    """Buffers are kept between events without one leaking into the next."""
    params, group = column([0.0], [4.0]), FakeGroup(2)
    averagers = [Averager(params[rank], [], group.of(rank)) for rank in range(2)]
    run_ranks(2, lambda rank: average_by(averagers[rank], [1.0, 1.0]))
    params[1][0].fill_(6.0)
    run_ranks(2, lambda rank: average_by(averagers[rank], [1.0, 1.0]))
    assert [p[0].item() for p in params] == [4.0, 4.0]


def in_steps(rank: int, group: FakeGroup) -> dict[str, list[float]]:
    """Average 1.0 and 3.0, and the counters 5 and 7, while the model goes on by 10."""
    param, counter = torch.tensor([(1.0, 3.0)[rank]]), torch.tensor([(5, 7)[rank]])
    averager = Averager([param], [counter], group.of(rank))
    averager.load()
    param += 10.0
    counter += 10
    averager.exchange([1.0, 1.0])
    meanwhile = [param.item(), counter.item()]
    averager.store()
    return {"meanwhile": meanwhile, "afterwards": [param.item(), counter.item()]}


def test_exchange_leaves_the_model_alone_until_the_averages_are_stored() -> None:
    """What is exchanged is the snapshot, whatever the parameters have become since."""
    group = FakeGroup(2)
    ranks = run_ranks(2, lambda rank: in_steps(rank, group))
    assert [rank["meanwhile"] for rank in ranks] == [[11.0, 15.0], [13.0, 17.0]]
    assert [rank["afterwards"] for rank in ranks] == [[2.0, 7.0]] * 2


def test_complex_buffers_are_averaged_by_their_parts() -> None:
    """Real and imaginary part each get equal weight."""
    buffers = column(complex(0.0, 0.0), complex(1.0, 2.0), dtype=torch.complex64)
    averaged([[], []], [1.0, 3.0], buffers=buffers)
    assert [buffer[0].item() for buffer in buffers] == [0.5 + 1.0j] * 2


def test_frozen_parameters_are_left_alone_after_selection() -> None:
    """Equal values are not rounded by averaging them."""
    group = FakeGroup(2)

    def average(rank: int) -> tuple[float, float]:
        frozen, trained = torch.tensor([float(rank)]), torch.tensor([float(rank)])
        averager = Averager([frozen, trained.requires_grad_()], [], group.of(rank))
        averager.select_trainable()
        average_by(averager, [1.0, 3.0])
        return frozen.item(), trained.item()

    assert run_ranks(2, average) == [(0.0, 0.75), (1.0, 0.75)]


def test_different_frozen_parameters_are_refused() -> None:
    """The flat buffers would not match."""
    group = FakeGroup(2)

    def select(rank: int) -> None:
        param = torch.ones(2, requires_grad=rank == 0)
        Averager([param], [], group.of(rank)).select_trainable()

    results = outcomes_of(2, select)
    assert [type(result) for result in results] == [RankMismatch, RankMismatch]
    assert "got [1, 0] by rank" in str(results[0])
