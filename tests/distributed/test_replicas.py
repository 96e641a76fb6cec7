"""The check that all ranks hold the same model."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

from lightning_elche.distributed.replicas import check_replicas
from lightning_elche.exceptions import RankMismatch
from tests.distributed.threads import FakeGroup, outcomes_of


def outcomes(*models: nn.Module) -> list[object]:
    """Return what the check gives on each rank: None or an exception."""
    group = FakeGroup(len(models))
    return outcomes_of(len(models), lambda rank: check_replicas(models[rank], group.of(rank)))


def test_equal_models_pass_with_different_values() -> None:
    """Values may differ, since every rank adopts those of rank 0."""
    assert outcomes(nn.Linear(2, 3), nn.Linear(2, 3)) == [None, None]


@pytest.mark.parametrize(
    "other",
    [
        lambda: nn.Linear(3, 3),
        lambda: nn.Linear(2, 3, bias=False),
        lambda: nn.Linear(2, 3).double(),
        lambda: nn.Sequential(nn.Linear(2, 3)),
    ],
    ids=["shape", "missing", "type", "name"],
)
def test_different_model_is_found_on_every_rank(other: Callable[[], nn.Module]) -> None:
    """All ranks raise, naming the ranks that differ from rank 0."""
    results = outcomes(nn.Linear(2, 3), other(), nn.Linear(2, 3))
    assert all(isinstance(result, RankMismatch) and "[1]" in str(result) for result in results)


def test_different_buffer_is_found() -> None:
    """Buffers are part of the model."""
    model = nn.Linear(2, 3)
    model.register_buffer("seen", torch.zeros(1))
    results = outcomes(nn.Linear(2, 3), model)
    assert [result.what for result in results if isinstance(result, RankMismatch)] == ["model"] * 2
