"""Tests of finding epochs that were never trained."""

from __future__ import annotations

import math
from typing import Any

import pytest

from lightning_elche.contracts.gates.placeholder import judge_placeholder
from lightning_elche.contracts.records import EpochRecord
from lightning_elche.contracts.verdicts import Verdict
from tests.contracts.sample_runs import epoch_of

P, F, U = Verdict.PASS, Verdict.FAIL, Verdict.INDETERMINATE
E_SINGLE = 2.7182817459106445


def _made_up(**changes: Any) -> EpochRecord:
    fields = {"train_loss": 1.0, "grad_norm_max": 1.0, "train_ppl": math.e, "wall_seconds": 0.5}
    return epoch_of(0, **{**fields, **changes})


@pytest.mark.parametrize(
    ("device", "seconds", "expected"),
    [
        ("cuda", 0.999, F),
        ("cuda", 1.0, P),
        ("cuda:1", 1.0, P),
        ("cpu", 9.999, F),
        ("cpu", 10.0, P),
        (None, 0.999, F),
        (None, 1.0, U),
        (None, 9.999, U),
        (None, 10.0, P),
        ("mps", 5.0, U),
    ],
)
def test_placeholder_is_too_fast_for_its_device(
    device: str | None, seconds: float, expected: Verdict
) -> None:
    """Below 1 s it is one anywhere, below 10 s on a CPU; of other devices nobody knows."""
    assert judge_placeholder(_made_up(wall_seconds=seconds), device=device) is expected


@pytest.mark.parametrize(
    "changes",
    [
        {"train_loss": 1.0000001},
        {"grad_norm_max": 0.9999999},
        {"train_ppl": E_SINGLE + 2.0**-21},
        {"train_ppl": E_SINGLE - 2.0**-21},
        {"train_ppl": math.nan},
        {"wall_seconds": math.nan},
    ],
)
def test_placeholder_needs_all_of_its_marks(changes: dict[str, float]) -> None:
    """An epoch that lacks one of the marks is trained, clipping to a norm of 1 included."""
    assert judge_placeholder(_made_up(**changes), device="cpu") is P


@pytest.mark.parametrize("ulps", [-1, 0, 1])
def test_placeholder_has_a_perplexity_of_e(ulps: int) -> None:
    """The perplexity is e within one unit in the last place of 32 bits."""
    record = _made_up(train_ppl=E_SINGLE + ulps * 2.0**-22)
    assert judge_placeholder(record, device="cpu") is F


def test_short_epoch_alone_is_no_placeholder() -> None:
    """An epoch that took no time, but has a loss of its own, is trained."""
    assert judge_placeholder(epoch_of(0, wall_seconds=0.01), device="cpu") is P
