"""A chunk pool whose cursor lives on the process group's store."""

from __future__ import annotations

from lightning_elche.control.chunks import Chunk
from lightning_elche.distributed.control_store import ControlStore

__all__ = ["StorePool"]


class StorePool:
    """The shared part of one epoch, claimed by fetch-and-add: each batch goes to exactly one rank.

    Batches `[0, world_size)` are reserved, one per rank, and not part of the cursor.

    Args:
        store: The run's control store.
        name: A name unique to the epoch.
        total: Batches in the epoch.
        world_size: Number of ranks.
    """

    def __init__(self, store: ControlStore, name: str, *, total: int, world_size: int) -> None:
        self._store = store
        self._key = f"pool/{name}"
        self.total = total
        self._first = world_size

    def remaining(self) -> int:
        """Ask the store how many batches nobody has claimed; others may claim some meanwhile."""
        return max(0, self.total - self._first - self._store.add(self._key, 0))

    def claim(self, size: int) -> Chunk:
        """Take up to `size` batches; the chunk is empty if none is left."""
        start = self._first + self._store.add(self._key, size) - size
        return Chunk(min(start, self.total), min(start + size, self.total))
