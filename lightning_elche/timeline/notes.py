"""What a reader has to know about the logs of a run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from lightning_elche.timeline.placed import RankTimeline

__all__ = ["notes_of"]

LOST_AFTER_NS = 2 * 10**9


def notes_of(
    ranks: Sequence[RankTimeline], ends_ns: Sequence[float], missing: Sequence[int]
) -> list[str]:
    """Return them.

    Args:
        ranks: Those with a log.
        ends_ns: Where the log of each ends.
        missing: Ranks without one.
    """
    notes = []
    if missing:
        numbers = ", ".join(map(str, missing))
        notes = [
            f"There is no event log of rank {numbers}: it was not started, or wrote elsewhere."
        ]
    last_ns = max(ends_ns)
    for rank, end_ns in zip(ranks, ends_ns, strict=True):
        notes += _notes_of_rank(rank, last_ns - end_ns)
    return notes


def _notes_of_rank(rank: RankTimeline, early_ns: float) -> Iterator[str]:
    log, name = rank.log, f"Rank {rank.rank}"
    if not log.is_closed and early_ns > LOST_AFTER_NS:
        yield f"{name} was lost: its log breaks off {early_ns / 1e9:.1f} s before the last one."
    elif not log.is_closed:
        yield f"{name} has not ended its log: it still runs, or was killed."
    if log.num_cut:
        yield f"{name}: {log.num_cut} lines of its log could not be read."
    if log.num_dropped:
        yield f"{name}: {log.num_dropped} records were dropped."
    if rank.offset.source == "wall":
        yield (
            f"{name} met the first one at fewer than three averages: it is placed by its wall "
            "clock, which may be off."
        )
    if log.header.get("approx"):
        yield f"{name}: waiting for data is approximate, by the gaps between hooks."
