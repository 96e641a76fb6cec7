"""Agreement on an abort, one number per step."""

from __future__ import annotations

import os

import pytest
import torch.distributed as dist

from lightning_elche.distributed.abort_reduction import AbortReduction
from lightning_elche.testing import run_ranks

pytestmark = pytest.mark.slow


def exchanged(codes: dict[int, int]) -> list[tuple[int, int] | None]:
    """Exchange three times; `codes` are wanted at the second."""
    rank = int(os.environ["RANK"])
    dist.init_process_group("gloo")
    reduction = AbortReduction(timeout_s=20.0)
    heard = [reduction.exchange(code) for code in (0, codes.get(rank, 0), 0)]
    reduction.close()
    dist.destroy_process_group()
    return heard


@pytest.mark.parametrize(
    ("codes", "agreed"),
    [({}, None), ({2: 27}, (27, 2)), ({0: 25, 1: 27, 2: 27}, (27, 1))],
    ids=["nobody", "one", "largest code, lowest rank"],
)
def test_all_ranks_hear_the_same_a_step_later(
    codes: dict[int, int], agreed: tuple[int, int] | None
) -> None:
    """Nobody waits for the others in the step itself."""
    results = run_ranks(exchanged, world_size=3, codes=codes)
    assert [result.value for result in results] == 3 * [[None, None, agreed]]
