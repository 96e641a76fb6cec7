"""Which checkpoints go when there are too many."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from lightning_elche.partition.manifest import Manifest
from lightning_elche.partition.store_config import StoreConfig

__all__ = ["Entry", "Fate", "decide_fates", "entry_of"]


@dataclass(frozen=True, kw_only=True)
class Entry:
    """What retention knows of a checkpoint.

    Attributes:
        name: Of its folder.
        step: Of its state.
        sequence: The newest one has the highest.
        label: If it has one.
        is_finite: Whether it may be resumed from.
        metric: The monitored value, if it is a number.
    """

    name: str
    step: int
    sequence: int
    label: str | None = None
    is_finite: bool = True
    metric: float | None = None

    @property
    def age_order(self) -> tuple[int, int, str]:
        """Sorts entries, oldest first."""
        return self.sequence, self.step, self.name


@dataclass(frozen=True)
class Fate:
    """What becomes of something in a root, and why."""

    name: str
    is_removed: bool
    reason: str


def entry_of(manifest: Manifest, monitor: str | None) -> Entry:
    """Return what retention knows of a checkpoint with this manifest."""
    metric = None if monitor is None else manifest.metrics.get(monitor)
    return Entry(
        name=manifest.name,
        step=manifest.step,
        sequence=manifest.sequence,
        label=manifest.label,
        is_finite=manifest.finite,
        metric=None if metric is None or math.isnan(metric) else metric,
    )


def decide_fates(entries: Iterable[Entry], config: StoreConfig) -> tuple[Fate, ...]:
    """Return what becomes of each checkpoint, oldest first.

    Args:
        entries: The checkpoints whose manifest is good.
        config: How many are kept.

    Example:
        >>> old, new = (Entry(name=f"step-{i}", step=i, sequence=i) for i in (1, 2))
        >>> [fate.is_removed for fate in decide_fates([old, new], StoreConfig(max_retained=1))]
        [True, False]
    """
    ordered = sorted(entries, key=lambda entry: entry.age_order)
    counted = [entry for entry in ordered if entry.is_finite and entry.label is None]
    newest = {entry.name for entry in counted[-config.max_retained :]}
    best = _best(ordered, config)
    return tuple(
        Fate(entry.name, is_removed=reason is None, reason=reason or _too_old(config))
        for entry in ordered
        for reason in [_reason_to_stay(entry, newest, best)]
    )


def _reason_to_stay(entry: Entry, newest: set[str], best: set[str]) -> str | None:
    if entry.label is not None:
        return f"labelled {entry.label!r}"
    if not entry.is_finite:
        return "not fit to resume from, left for inspection"
    if entry.name in newest:
        return "among the newest"
    return "among the best" if entry.name in best else None


def _too_old(config: StoreConfig) -> str:
    return f"older than the newest {config.max_retained}"


def _best(entries: Sequence[Entry], config: StoreConfig) -> set[str]:
    if config.monitor is None or config.keep_best == 0:
        return set()
    sign = 1.0 if config.mode == "min" else -1.0
    ranked = sorted(
        (sign * entry.metric, -entry.sequence, entry.name)  # of equals the newest
        for entry in entries
        if entry.metric is not None and entry.is_finite
    )
    return {name for _, _, name in ranked[: config.keep_best]}
