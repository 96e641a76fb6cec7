"""The comparison of replicas after an average."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import pytest
import torch

from lightning_elche.distributed.replica_agreement import ReplicaAgreement, suspects_of
from lightning_elche.ops.rml_torch import named_lanes
from lightning_elche.partition.errors import InvalidConfig, ReplicaDivergence
from lightning_elche.partition.fnv import Lanes
from lightning_elche.partition.replicas import ReplicaConfig
from lightning_elche.partition.rml import sum_lanes
from tests.distributed.threads import FakeGroup, outcomes_of, run_ranks

BIG = (1 << 64) - 1


def lanes_of(tensors: Sequence[torch.Tensor]) -> Lanes:
    named = {f"model/{index}": tensor for index, tensor in enumerate(tensors)}
    return sum_lanes(one.lanes for one in named_lanes(named))


def compare(values: Sequence[Lanes], on_disagree: Any = "raise") -> list[Any]:
    """Return what each rank gets, of which rank r has the r-th value."""
    group = FakeGroup(len(values))

    def check(rank: int) -> object:
        agreement = ReplicaAgreement(ReplicaConfig(on_disagree=on_disagree), group.of(rank))
        return agreement.check(values[rank], sync_index=3, step=24)

    return outcomes_of(len(values), check)


def replicas(world_size: int, broken: Sequence[int]) -> list[list[torch.Tensor]]:
    """Return the tensors of each rank, of all kinds of bits; those in `broken` have one flipped."""
    made = []
    for rank in range(world_size):
        floats = torch.tensor([0.1, -0.0, torch.nan, torch.inf])
        halves = torch.tensor([[1.0, -0.0]], dtype=torch.bfloat16)
        tensors = [floats, halves, torch.tensor(7), torch.tensor([True, False])]
        if rank in broken:
            floats.view(torch.int32)[0] ^= 1 << rank
        made.append(tensors)
    return made


def repair(tensors: list[list[torch.Tensor]], *, spoils: bool = False) -> list[Any]:
    group = FakeGroup(len(tensors))

    def check(rank: int) -> object:
        own = tensors[rank]
        agreement = ReplicaAgreement(ReplicaConfig(on_disagree="repair"), group.of(rank))
        take = partial(lanes_of, own)
        again = (lambda: (rank, 0)) if spoils else take
        found = agreement.check(take(), sync_index=0, step=8, tensors=own, take=again)
        return found, agreement.num_repairs

    return outcomes_of(len(tensors), check)


def test_equal_replicas_agree() -> None:
    """Nothing is found, of any lanes of 64 bits."""
    assert compare([(BIG, 1), (BIG, 1)]) == [None, None]


def test_all_ranks_raise_the_same_divergence() -> None:
    """It names event, step, suspect and the lanes of all, to their last bit."""
    values = [(BIG, BIG - 1), (BIG, BIG - 2), (BIG, BIG - 1)]
    errors = compare(values)
    assert {type(error) for error in errors} == {ReplicaDivergence}
    assert {error.args for error in errors} == {(3, 24, (1,), tuple(values))}


def test_suspects_are_outside_of_a_strict_majority() -> None:
    """Two ranks cannot tell which of them is right, nor can halves."""
    assert suspects_of([(1, 1), (2, 2)]) == ()
    assert suspects_of([(1, 1), (2, 2), (2, 2), (1, 1)]) == ()
    assert suspects_of([(1, 1), (2, 2), (3, 3), (2, 2), (2, 2)]) == (0, 2)


def test_warning_returns_the_divergence_on_every_rank() -> None:
    """The run goes on, and the caller tells of it."""
    found = compare([(1, 1), (2, 2), (1, 1)], "warn")
    assert [one.suspects for one in found] == [(1,), (1,), (1,)]


@pytest.mark.parametrize("broken", [0, 2])
def test_repair_gives_the_bits_of_the_majority_to_all(broken: int) -> None:
    """NaN, negative zeros, halves, integers and booleans, whichever rank was wrong."""
    tensors = replicas(3, [broken])
    outcomes = repair(tensors)
    sound = lanes_of(replicas(1, [])[0])
    assert [lanes_of(own) for own in tensors] == [sound] * 3
    assert [(found.suspects, count) for found, count in outcomes] == [((broken,), 1)] * 3


def test_repair_without_a_majority_raises_on_every_rank() -> None:
    """Nothing is changed then."""
    tensors = replicas(2, [1])
    outcomes = repair(tensors)
    assert [type(one) for one in outcomes] == [ReplicaDivergence] * 2
    assert lanes_of(tensors[0]) != lanes_of(tensors[1])


def test_repair_that_does_not_help_raises_on_every_rank() -> None:
    """As where a rank cannot store what it is given."""
    outcomes = repair(replicas(3, [1]), spoils=True)
    assert [one.values for one in outcomes] == [((0, 0), (1, 0), (2, 0))] * 3


def test_checks_fall_on_every_nth_event() -> None:
    """The second is event 1, and 0 means never."""
    group = FakeGroup(1)
    second, never = (
        ReplicaAgreement(ReplicaConfig(check_every=every), group.of(0)) for every in (2, 0)
    )
    assert [second.is_due(index) for index in range(4)] == [False, True, False, True]
    assert not any(never.is_due(index) for index in range(4))


def test_checks_are_counted() -> None:
    """Also those that find nothing."""

    def check(rank: int) -> int:
        agreement = ReplicaAgreement(ReplicaConfig(), group.of(rank))
        agreement.check((1, 2), sync_index=0, step=1)
        return agreement.num_checks

    group = FakeGroup(2)
    assert run_ranks(2, check) == [1, 1]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"check_every": -1}, "`check_every` must be >= 0, got -1."),
        ({"on_disagree": "fix"}, "`on_disagree` must be one of .*, got 'fix'."),
    ],
)
def test_bad_option_is_named(options: dict[str, Any], message: str) -> None:
    """The error tells what it should be."""
    with pytest.raises(InvalidConfig, match=message):
        ReplicaConfig(**options)
