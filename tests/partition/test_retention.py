"""Which checkpoints go when there are too many."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightning_elche.partition.errors import InvalidConfig
from lightning_elche.partition.retention import Entry, decide_fates
from lightning_elche.partition.store_config import StoreConfig


def entry(step: int, **options: object) -> Entry:
    return Entry(**{"name": f"s{step}", "step": step, "sequence": step, **options})  # type: ignore[arg-type]


def removed(entries: list[Entry], **options: object) -> list[str]:
    config = StoreConfig(**options)  # type: ignore[arg-type]
    return [fate.name for fate in decide_fates(entries, config) if fate.is_removed]


def test_oldest_go_beyond_the_newest() -> None:
    """The number to keep is that of the newest ones."""
    assert removed([entry(step) for step in (3, 1, 4, 2)], max_retained=2) == ["s1", "s2"]
    assert removed([entry(step) for step in (1, 2)], max_retained=2) == []


def test_age_is_that_of_the_sequence_and_not_of_the_step() -> None:
    """After a rewind a lower step is newer."""
    entries = [entry(9, sequence=1), entry(5, sequence=2), entry(6, sequence=3)]
    assert removed(entries, max_retained=2) == ["s9"]


def test_labelled_ones_stay_and_do_not_count() -> None:
    """A label protects, and does not evict another."""
    entries = [entry(1), entry(2, label="epoch-1"), entry(3, label="stop"), entry(4)]
    assert removed(entries, max_retained=2) == []
    assert removed(entries, max_retained=1) == ["s1"]


def test_one_with_nan_evicts_nothing() -> None:
    """A state that cannot be resumed from does not push out one that can."""
    entries = [entry(1), entry(2), entry(3, is_finite=False), entry(4, is_finite=False)]
    assert removed(entries, max_retained=2) == []


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, ["s1", "s2", "s3", "s4"]),
        ({"monitor": "loss"}, ["s1", "s3", "s4"]),
        ({"monitor": "loss", "keep_best": 2}, ["s1", "s4"]),
        ({"monitor": "loss", "mode": "max"}, ["s2", "s3", "s4"]),
        ({"monitor": "loss", "keep_best": 0}, ["s1", "s2", "s3", "s4"]),
    ],
)
def test_best_ones_stay(options: dict[str, object], expected: list[str]) -> None:
    """Those with the best monitored values are kept as well; without a value none is best."""
    metrics = {1: 4.0, 2: 1.0, 3: 2.0, 4: None, 5: 3.0}
    entries = [entry(step, metric=metric) for step, metric in metrics.items()]
    assert removed(entries, max_retained=1, **options) == expected


def test_newest_of_equally_good_ones_is_the_best() -> None:
    """Ties go to the newest."""
    entries = [entry(1, metric=1.0), entry(2, metric=1.0), entry(3, metric=2.0)]
    assert removed(entries, max_retained=1, monitor="loss") == ["s1"]


def test_each_fate_has_a_reason() -> None:
    """What stays and what goes says why."""
    entries = [
        entry(1),
        entry(2, metric=0.0),
        entry(3, label="stop"),
        entry(4, is_finite=False),
        entry(5),
    ]
    fates = decide_fates(entries, StoreConfig(max_retained=1, monitor="loss"))
    assert [fate.reason for fate in fates] == [
        "older than the newest 1",
        "among the best",
        "labelled 'stop'",
        "not fit to resume from, left for inspection",
        "among the newest",
    ]


@given(
    entries=st.lists(
        st.builds(
            entry,
            st.integers(0, 99),
            label=st.none() | st.just("a"),
            is_finite=st.booleans(),
            metric=st.none() | st.floats(allow_nan=False),
        ),
        unique_by=lambda one: one.step,
    ),
    keep=st.integers(1, 5),
)
def test_newest_that_can_be_resumed_from_always_stays(entries: list[Entry], keep: int) -> None:
    """Whatever there is, the newest finite one is kept, and no more than `keep` others count."""
    gone = removed(entries, max_retained=keep, monitor="loss")
    finite = sorted((one.sequence, one.name) for one in entries if one.is_finite)
    assert not finite or finite[-1][1] not in gone
    assert set(gone) <= {one.name for one in entries if one.is_finite and one.label is None}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_retained": 0}, "`max_retained` must be >= 1, got 0"),
        ({"keep_best": -1}, "`keep_best` must be >= 0, got -1"),
        ({"max_quarantined": 0}, "`max_quarantined` must be >= 1, got 0"),
        ({"mode": "best"}, "`mode` must be one of 'min', 'max', got 'best'"),
        ({"durability": "none"}, "`durability` must be one of 'fsync', 'flush', got 'none'"),
        ({"layout": "wide"}, "`layout` must be one of 'auto', 'single', 'sharded'"),
        ({"on_rewind": "delete"}, "`on_rewind` must be one of 'archive', 'raise'"),
        ({"on_write_error": "ignore"}, "`on_write_error` must be one of 'raise', 'warn'"),
        ({"dir_mode": 0o400}, "`dir_mode` must let its owner in, got 0o400"),
    ],
)
def test_config_is_refused_with_the_name_of_a_bad_value(
    options: dict[str, object], message: str
) -> None:
    """A value outside its range raises an error that names the parameter."""
    with pytest.raises(InvalidConfig, match=message):
        StoreConfig(**options)  # type: ignore[arg-type]
