"""Dealing what is left of an epoch that was interrupted."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_elche.data.agreed_progress import gather_progress
from lightning_elche.data.dealer import Dealer
from lightning_elche.data.epoch_progress import EpochProgress
from tests.data.dealt import batches_of, dealers_of, open_all, plan_of, train
from tests.distributed.threads import FakeGroup, run_ranks


def agreed(dealers: Sequence[Dealer], steps: int = 0) -> EpochProgress:
    """Return what all ranks have trained, as a checkpoint holds it."""
    group = FakeGroup(len(dealers))
    progress, *others = run_ranks(
        len(dealers),
        lambda rank: gather_progress(dealers[rank], group.of(rank), steps=steps),
    )
    assert all(other == progress for other in others)
    return progress


@given(
    ms=st.lists(st.sampled_from([1.0, 2.0, 5.0, 9.0]), min_size=2, max_size=4),
    after=st.integers(min_value=2, max_value=5),
    total=st.integers(min_value=5, max_value=70),
    trained=st.lists(st.integers(min_value=0, max_value=3), max_size=60),
    is_progressive=st.booleans(),
)
@settings(max_examples=60)
def test_resumed_epoch_deals_exactly_what_is_left(
    ms: list[float], after: int, total: int, trained: list[int], is_progressive: bool
) -> None:
    """However far each rank was, whatever it had claimed, and on any number of ranks after."""
    dealers = dealers_of(plan_of(*ms), progressive=is_progressive)
    open_all(dealers, total)
    streams = [dealer.deal() for dealer in dealers]
    done = []
    for rank in trained:
        rank %= len(ms)
        batch = next(streams[rank], None)
        if batch is not None:
            done.append(batch[0] // 2)
            dealers[rank].consume()
    for stream in streams:
        next(stream, None)  # prefetched, not trained
    progress = agreed(dealers, steps=len(done))
    resumed = dealers_of(plan_of(*[1.0] * after), progressive=is_progressive)
    for dealer in resumed:
        dealer.restore(progress)
    open_all(resumed, total)
    assert resumed[0].trained_before == len(done)
    assert resumed[0].restored_steps(0) == len(done)
    left = train(resumed, [1.0] * after)
    assert sorted(itertools.chain(done, *left)) == list(range(total))


def test_resumed_epoch_of_other_batches_is_refused() -> None:
    """Their positions would mean other samples."""
    dealers = dealers_of(plan_of(1.0, 2.0))
    open_all(dealers, 9)
    progress = agreed(dealers)
    (dealer, _) = dealers_of(plan_of(1.0, 2.0))
    dealer.restore(progress)
    with pytest.raises(ValueError, match="the sampler yields other batches"):
        dealer.open(0, batches_of(8))


def test_epoch_after_the_resumed_one_is_whole_but_for_what_was_trained_ahead() -> None:
    """Batches that were trained ahead of their epoch are not dealt again."""
    dealers = dealers_of(plan_of(1.0, 2.0))
    open_all(dealers, 9)
    progress = {**agreed(dealers), "ahead": [[3, 5]]}
    resumed = dealers_of(plan_of(1.0, 2.0))
    for dealer in resumed:
        dealer.restore(progress)
    open_all(resumed, 9, epoch=1)
    assert sorted(itertools.chain(*train(resumed, [1.0, 2.0]))) == [0, 1, 2, 5, 6, 7, 8]
    open_all(resumed, 9, epoch=2)
    assert sorted(itertools.chain(*train(resumed, [1.0, 2.0]))) == list(range(9))
