"""Averaging with an outer optimizer."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
import torch
from torch import Tensor

from lightning_elche.control.outer import OuterOptimizer
from lightning_elche.distributed.averager import Averager, AveragerState
from tests.distributed.threads import FakeGroup, average_by, run_ranks

HALF = OuterOptimizer(lr=0.5, momentum=0.0)
NESTEROV = OuterOptimizer(lr=0.5, momentum=0.5)


def on_ranks(
    function: Callable[[Averager, Tensor, int], object], **options: object
) -> list[object]:
    """Call `function` on two started ranks with one trainable parameter, at first 0.0."""
    group = FakeGroup(2)

    def run(rank: int) -> object:
        param = torch.full((1,), 100.0 * rank).requires_grad_()
        averager = Averager([param], [], group.of(rank), **options)  # type: ignore[arg-type]
        averager.start()
        return function(averager, param.data, rank)

    return run_ranks(2, run)


def move(averager: Averager, param: Tensor, by: float, weights: Sequence[float] = (1, 1)) -> float:
    """Move this rank's parameter, average, and return where all ranks go on."""
    param += by
    average_by(averager, list(weights))
    return param.item()


def test_start_takes_over_rank_zero() -> None:
    """Ranks at 0 and 100 start at 0."""
    assert on_ranks(lambda _, param, __: param.item(), outer_optimizer=NESTEROV) == [0.0, 0.0]


def test_outer_step_starts_from_the_common_start() -> None:
    """The replicas, 4 and 8 away from it, average to 6; half of the way is 3, half a round on 6."""

    def twice(averager: Averager, param: Tensor, rank: int) -> list[float]:
        by = (4.0, 8.0)[rank]
        return [move(averager, param, by), move(averager, param, by)]

    assert on_ranks(twice, outer_optimizer=HALF) == [[3.0, 6.0]] * 2


def test_outer_step_takes_the_weighted_average() -> None:
    """Weights 3 and 1 average 4 and 8 to 5; half of the way is 2.5."""
    results = on_ranks(
        lambda averager, param, rank: move(averager, param, (4.0, 8.0)[rank], (3.0, 1.0)),
        outer_optimizer=HALF,
    )
    assert results == [2.5, 2.5]


def test_rank_of_weight_zero_follows_the_outer_step() -> None:
    """Even one whose parameters are no numbers: momentum and result are those of the others."""
    results = on_ranks(
        lambda averager, param, rank: [
            move(averager, param, (4.0, torch.nan)[rank], (1.0, 0.0)),
            move(averager, param, 0.0),
        ],
        outer_optimizer=NESTEROV,
    )
    assert results == [[3.0, 3.5]] * 2


def test_buffers_are_averaged_plainly() -> None:
    """Running statistics are no parameters."""
    group = FakeGroup(2)

    def run(rank: int) -> float:
        buffer = torch.tensor([0.0])
        averager = Averager([torch.zeros(2)], [buffer], group.of(rank), outer_optimizer=NESTEROV)
        averager.start()
        buffer += 2.0 + 2.0 * rank
        average_by(averager, [1.0, 1.0])
        return buffer.item()

    assert run_ranks(2, run) == [3.0, 3.0]


def test_delta_tells_how_far_replicas_are_apart() -> None:
    """It is the distance to the average, 4, not to what the outer optimizer makes of it, 2."""

    def delta(averager: Averager, param: Tensor, rank: int) -> float:
        param += (2.0, 6.0)[rank]
        return average_by(averager, [1.0, 1.0]).relative_delta

    assert on_ranks(delta, outer_optimizer=HALF) == [0.5, 0.5]


def test_average_before_start_is_refused() -> None:
    """Ranks would step from where they are, each from somewhere else."""
    averager = Averager([torch.ones(1)], [], FakeGroup(1).of(0), outer_optimizer=HALF)
    with pytest.raises(RuntimeError, match="`start` must be called before"):
        average_by(averager, [1.0])


def test_state_continues_in_another_averager() -> None:
    """Momentum from the state, and the start from the parameters, give the same bits."""

    def straight(averager: Averager, param: Tensor, rank: int) -> list[float]:
        return [move(averager, param, 1.0 + rank) for _ in range(4)]

    def resumed(averager: Averager, param: Tensor, rank: int) -> list[float]:
        moved = [move(averager, param, 1.0 + rank) for _ in range(2)]
        other = Averager([param], [], averager._collectives, outer_optimizer=NESTEROV)
        other.start()
        other.load_state_dict(averager.state_dict())
        return moved + [move(other, param, 1.0 + rank) for _ in range(2)]

    first, second = (on_ranks(run, outer_optimizer=NESTEROV) for run in (straight, resumed))
    assert first == second


def test_state_is_a_copy() -> None:
    """What a checkpoint writes in the background is not what the next event changes."""

    def saved(averager: Averager, param: Tensor, _: int) -> list[float]:
        move(averager, param, 2.0)
        state = averager.state_dict()
        move(averager, param, 2.0)
        return state["momentum"][0].tolist()

    assert on_ranks(saved, outer_optimizer=NESTEROV) == [[-2.0], [-2.0]]


def test_state_without_momentum_is_empty() -> None:
    """There is nothing to save beside the parameters."""
    assert (
        on_ranks(lambda averager, *_: averager.state_dict(), outer_optimizer=HALF)
        == [AveragerState(momentum={})] * 2
    )


def test_state_of_another_model_is_refused() -> None:
    """Momentum of other shapes would be nonsense."""
    averager = Averager([torch.ones(2)], [], FakeGroup(1).of(0), outer_optimizer=NESTEROV)
    with pytest.raises(ValueError, match="`outer_optimizer` must be of the same model"):
        averager.load_state_dict({"momentum": {0: torch.ones(3)}})


def test_momentum_survives_when_other_parameters_freeze_and_thaw() -> None:
    """The parameter that stays goes on; the one that comes back starts from where it is."""
    group = FakeGroup(2)

    def run(rank: int) -> list[tuple[float, float]]:
        first, second = (torch.zeros(1, requires_grad=True) for _ in range(2))
        averager = Averager([first, second], [], group.of(rank), outer_optimizer=NESTEROV)
        averager.start()
        places = []
        for is_frozen in (False, True, False):
            first.requires_grad_(not is_frozen)
            averager.select_trainable()
            first.data += 0.0 if is_frozen else 4.0
            second.data += 4.0
            average_by(averager, [1.0, 1.0])
            places.append((first.item(), second.item()))
        return places

    # By hand: velocity v = v / 2 + 4, and each step (4 + v / 2) / 2.
    assert run_ranks(2, run) == [[(3.0, 3.0), (3.0, 6.5), (6.0, 10.25)]] * 2
