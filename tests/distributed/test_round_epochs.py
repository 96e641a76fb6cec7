"""What ranks count and measure in an epoch, and how it ends."""

from __future__ import annotations

import torch

from tests.distributed.meeting import measured_ranks, meet, ranks_of
from tests.distributed.threads import outcomes_of, run_ranks


def test_epoch_metrics_are_equal_on_every_rank() -> None:
    """Every rank closes the epoch with the same numbers."""
    ranks = measured_ranks()
    one, other = run_ranks(2, lambda rank: ranks[rank].rounds.close_epoch())
    assert repr(one) == repr(other) == repr(ranks[0].rounds.epoch_metrics)
    assert (one.batches, one.samples, one.events) == ((40, 10), (160, 40), 1)


def test_epoch_counts_start_anew_with_the_next_epoch() -> None:
    """Batches are counted by epoch, steps over the whole run."""
    ranks = measured_ranks()
    outcomes_of(2, lambda rank: ranks[rank].rounds.begin_epoch(1))
    for rank in ranks:
        rank.train(5)
    event = meet(ranks)[0]
    assert (event.epoch, event.epoch_batches, event.global_step) == (1, 10, 60)


def test_epoch_is_complete_when_all_ranks_are_drained() -> None:
    """An event tells that nobody has data left."""
    ranks = ranks_of()
    assert not meet(ranks)[0].is_epoch_complete
    assert meet(ranks, is_drained=True)[0].is_epoch_complete


def test_losses_reach_the_epoch_metrics() -> None:
    """The epoch's loss is the mean over the batches of all ranks."""
    ranks = ranks_of()
    for rank, losses in zip(ranks, ((1.0, 1.0, 1.0), (5.0,)), strict=True):
        for loss in losses:
            rank.rounds.window.add_loss(torch.tensor(loss))
        rank.train(len(losses))
    meet(ranks, is_drained=True)
    metrics = run_ranks(2, lambda rank: ranks[rank].rounds.close_epoch())
    assert metrics[0].loss == 2.0
