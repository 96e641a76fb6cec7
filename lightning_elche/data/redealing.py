"""Batches of an epoch that one rank has skipped, and another may train."""

from __future__ import annotations

from lightning_elche.distributed.control_store import ControlStore

__all__ = ["Redealing"]


class Redealing:
    """A list on the store, to which ranks add and from which others take; each batch once.

    What nobody takes, since all others have claimed their last batch, stays skipped.

    Args:
        store: The run's control store.
        name: A name unique to the epoch, equal on every rank.
        rank: This rank.
    """

    def __init__(self, store: ControlStore, name: str, rank: int) -> None:
        self._store = store
        self._key = f"redeal/{name}"
        self._rank = rank
        self._num_seen = 0
        self.taken: set[int] = set()

    def offer(self, index: int) -> None:
        """Let another rank train a batch, unless this one had it from another itself.

        Args:
            index: Its position in the epoch.
        """
        if index not in self.taken:
            place = self._store.add(self._key, 1) - 1
            self._store.first_value(f"{self._key}/{place}", f"{self._rank} {index}")

    def take(self) -> int | None:
        """Return a batch that this rank is to train, `None` if there is none at present."""
        offered = self._store.add(self._key, 0)
        while self._num_seen < offered:
            entry = self._store.value(f"{self._key}/{self._num_seen}")
            if entry is None:  # it is being written
                return None
            self._num_seen += 1
            rank, index = map(int, entry.split())
            if rank != self._rank and self._is_first(self._num_seen):
                self.taken.add(index)
                return index
        return None

    def _is_first(self, place: int) -> bool:
        own = str(self._rank)
        return self._store.first_value(f"{self._key}/{place}/by", own) == own
