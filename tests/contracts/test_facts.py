"""Tests of what a run tells of itself."""

from __future__ import annotations

import pytest

from lightning_elche.contracts.facts import RunFacts, epoch_zero_cap
from lightning_elche.contracts.gates.divergence import EpochZeroCap
from tests.contracts.sample_runs import contract_of

FINETUNE_CAP = EpochZeroCap(mode="finetune", limit=10.0)
SCRATCH_CAP = EpochZeroCap(mode="from_scratch", limit=21.649810791015625)


@pytest.mark.parametrize(
    ("mode", "vocab_size", "expected"),
    [
        ("finetune", None, FINETUNE_CAP),
        ("finetune", 50257, FINETUNE_CAP),
        ("from_scratch", 50257, SCRATCH_CAP),
        ("from_scratch", None, None),
        (None, 50257, None),
    ],
)
def test_cap_is_that_of_the_mode(
    mode: str | None, vocab_size: int | None, expected: EpochZeroCap | None
) -> None:
    """A contract that knows both modes has the cap of the run's, if that is known."""
    facts = RunFacts(mode=mode, vocab_size=vocab_size)
    assert epoch_zero_cap(contract_of(knows_from_scratch=True), facts) == expected


@pytest.mark.parametrize("mode", ["finetune", "from_scratch", None])
def test_cap_is_ten_where_the_contract_knows_only_finetuning(mode: str | None) -> None:
    """A contract that never mentions training from scratch has the cap of finetuning always."""
    facts = RunFacts(mode=mode, vocab_size=50257)
    assert epoch_zero_cap(contract_of(knows_from_scratch=False), facts) == FINETUNE_CAP
