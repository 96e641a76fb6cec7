"""What all ranks together have trained of the epochs under way."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import chain

from lightning_elche.data.dealer import Dealer
from lightning_elche.data.epoch_progress import EpochProgress, indices_of, ranges_of, without
from lightning_elche.distributed.collectives import Collectives, gather_lists

__all__ = ["gather_progress"]


def gather_progress(dealer: Dealer, collectives: Collectives, *, steps: int) -> EpochProgress:
    """Return the progress to save; every rank calls this at the same point, between two steps.

    Cost: two exchanges of a few numbers, and O(batches of the epoch) on each rank.

    Args:
        dealer: This rank's.
        collectives: How to reach the other ranks.
        steps: Optimizer steps that all ranks have made in this epoch.
    """
    # Read before the exchange: after it, another rank may claim more.
    own_untrained, own_ahead = dealer.untrained(), dealer.trained_ahead()
    untrained = _union(own_untrained, collectives)
    ahead = _union(own_ahead, collectives)
    return EpochProgress(
        epoch=dealer.epoch,
        total=dealer.total,
        digest=dealer.digest,
        trained=ranges_of(without(dealer.total, untrained)),
        ahead=ranges_of(ahead),
        steps=steps,
    )


def _union(own: Iterable[int], collectives: Collectives) -> set[int]:
    ends = list(chain.from_iterable(ranges_of(own)))
    return set().union(*map(_indices, gather_lists(collectives, ends)))


def _indices(ends: Sequence[int]) -> set[int]:
    return indices_of(zip(ends[::2], ends[1::2], strict=True))
