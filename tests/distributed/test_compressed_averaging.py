"""Averaging with compression."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
import torch
from torch import Tensor

from lightning_elche.control.outer import OuterOptimizer
from lightning_elche.distributed.averager import Averager, Exchange
from tests.distributed.threads import FakeGroup, average_by, run_ranks


def on_ranks(
    function: Callable[[Averager, Tensor, int], object],
    *,
    start: Sequence[float] = (0.0, 0.0),
    dtype: torch.dtype = torch.float32,
    outer_optimizer: OuterOptimizer | None = None,
) -> list[object]:
    """Call `function` on a started averager per rank, with one parameter that it averages."""
    group = FakeGroup(len(start))

    def run(rank: int) -> object:
        param = torch.full((3,), start[rank], dtype=dtype)
        averager = Averager(
            [param], [], group.of(rank), outer_optimizer=outer_optimizer, compression="bf16"
        )
        averager.start()
        return function(averager, param, rank)

    return run_ranks(len(start), run)


def test_start_is_exact() -> None:
    """A number that bfloat16 does not hold is taken over as it is."""
    assert (
        on_ranks(lambda _, param, __: param[0].item(), start=(2.0**-20 + 1.0, 5.0))
        == [2.0**-20 + 1.0] * 2
    )


def test_difference_to_the_last_average_travels() -> None:
    """Steps far below the resolution of bfloat16 at 1 arrive, since the difference is small."""

    def step(averager: Averager, param: Tensor, rank: int) -> float:
        param += (1.0 + rank) * 2.0**-20
        average_by(averager, [1.0, 1.0])
        return param[0].item()

    assert on_ranks(step, start=(1.0, 1.0)) == [1.0 + 1.5 * 2.0**-20] * 2


def test_weights_count_and_weight_zero_adopts() -> None:
    """Weights 3, 1 and 0 average 4, 8 and no number to 5."""

    def step(averager: Averager, param: Tensor, rank: int) -> float:
        param += (4.0, 8.0, torch.nan)[rank]
        average_by(averager, [3.0, 1.0, 0.0])
        return param[0].item()

    assert on_ranks(step, start=(0.0,) * 3) == [5.0] * 3


CONSTANTS = (0.0, 2.0 + 2.0**-8)  # half of the distance is no number of bfloat16
MEAN = 1.0 + 2.0**-9


def mean_result(averager: Averager, param: Tensor, rank: int, *, forgets: bool) -> float:
    """Return the mean of 200 averages of the same parameters."""
    results = []
    for _ in range(200):
        param.fill_(CONSTANTS[rank])
        average_by(averager, [1.0, 1.0])
        results.append(param[0].item())
        if forgets:
            averager.load_state_dict(averager.state_dict())  # the error restarts at 0
    return sum(results) / len(results)


def test_averages_of_constant_parameters_converge_to_their_mean() -> None:
    """What one round loses the next ones bring, up to a rounding over 200 rounds."""
    results = on_ranks(lambda *args: mean_result(*args, forgets=False))
    assert results == pytest.approx([MEAN] * 2, abs=2.0**-8 / 200)


def test_averages_stay_beside_the_mean_where_the_error_is_forgotten() -> None:
    """The falsifier: without feedback, they get stuck where the roundings cancel."""
    results = on_ranks(lambda *args: mean_result(*args, forgets=True))
    assert results == [1.0, 1.0]


def test_equal_replicas_arrive_where_they_are() -> None:
    """Averages of equal parameters approach them to the last bit within a few rounds."""

    def repeat(averager: Averager, param: Tensor, _: int) -> float:
        for _ in range(6):
            param.fill_(0.1)
            average_by(averager, [1.0, 1.0])
        return param[0].item()

    assert on_ranks(repeat) == pytest.approx([0.1] * 2, rel=1e-6)


def exchange_of(dtype: torch.dtype) -> Exchange:
    """Return what one exchange of three elements did."""
    exchanges = on_ranks(lambda averager, *_: average_by(averager, [1.0, 1.0]), dtype=dtype)
    assert isinstance(exchanges[0], Exchange)
    return exchanges[0]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_half_of_the_bytes_are_saved(dtype: torch.dtype) -> None:
    """Three elements travel in 6 bytes instead of 12."""
    exchange = exchange_of(dtype)
    assert (exchange.exchanged_bytes, exchange.saved_bytes) == (6, 6)


def test_float64_is_not_compressed() -> None:
    """Who trains in doubles wants their precision."""
    exchange = exchange_of(torch.float64)
    assert (exchange.exchanged_bytes, exchange.saved_bytes) == (24, 0)


def test_outer_step_is_made_of_the_compressed_average() -> None:
    """Half of the way to 6 is 3; from there, half of the way to 9 is 6, plus half of 3 by v."""

    def steps(averager: Averager, param: Tensor, rank: int) -> list[float]:
        places = []
        for _ in range(2):
            param += (4.0, 8.0)[rank]
            average_by(averager, [1.0, 1.0])
            places.append(param[0].item())
        return places

    outer = OuterOptimizer(lr=0.5, momentum=0.5, nesterov=False)
    assert on_ranks(steps, outer_optimizer=outer) == [[3.0, 7.5]] * 2


def test_error_survives_when_another_parameter_freezes() -> None:
    """What rounding lost of the parameter that stays is made up for all the same."""
    group = FakeGroup(2)

    def run(rank: int) -> float:
        first, second = (torch.zeros(3, requires_grad=True) for _ in range(2))
        averager = Averager([first, second], [], group.of(rank), compression="bf16")
        averager.start()
        for round_ in range(512):
            first.requires_grad_(round_ % 2 == 0)
            averager.select_trainable()
            second.data += 1.0 + 2.0**-10
            average_by(averager, [1.0, 1.0])
        return second[0].item()

    assert run_ranks(2, run) == pytest.approx([512.5] * 2, abs=2.0**-7)
