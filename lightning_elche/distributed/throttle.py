"""Holds a rank back that is too many steps ahead of the slowest one."""

from __future__ import annotations

from lightning_elche.distributed.control_store import ControlStore

__all__ = ["THROTTLED", "Throttle"]

THROTTLED = (
    "A rank stayed more than `max_batch_diff`={0.max_batch_diff} steps behind for `timeout_s`="
    "{0.timeout_s:g}. It has ended or hangs."
)

DRAINED_STEPS = 2**40  # nobody waits for a rank without data


class Throttle:
    """Compares how many steps the ranks have made since the last averaging event.

    Every rank counts its steps on the store: one operation per step, and one per other rank when a
    rank has used up the lead that it knows of.

    Args:
        store: The run's control store.
        rank: This rank.
        world_size: Number of ranks.
        max_batch_diff: Steps that a rank may be ahead of the slowest; 0 is lockstep.
    """

    def __init__(
        self, store: ControlStore, *, rank: int, world_size: int, max_batch_diff: int
    ) -> None:
        self._store = store
        self._rank = rank
        self._world_size = world_size
        self._max_batch_diff = max_batch_diff
        self.start(0)

    def start(self, index: int) -> None:
        """Start to count for averaging event `index`; every rank has begun the window before."""
        if index >= 2:
            self._store.delete(self._key(self._rank, index - 2))
        self._index = index
        self._posted = 0
        self._slowest = 0  # steps of the slowest other rank, as far as this one knows

    def post(self, steps: int, *, is_drained: bool) -> None:
        """Tell the others how many steps this rank has made since the last averaging event.

        Args:
            steps: Their number.
            is_drained: Whether it has no data left, so that nobody waits for it.

        Raises:
            PeerLost: If the store does not answer.
        """
        shown = DRAINED_STEPS if is_drained else steps
        if shown > self._posted:
            self._store.add(self._key(self._rank, self._index), shown - self._posted)
            self._posted = shown

    def is_ahead(self, steps: int) -> bool:
        """Return whether a rank that has made `steps` must wait for others.

        Raises:
            PeerLost: If the store does not answer.
        """
        limit = self._max_batch_diff
        if steps > self._slowest + limit:
            others = (rank for rank in range(self._world_size) if rank != self._rank)
            self._slowest = min(self._store.add(self._key(rank, self._index), 0) for rank in others)
        return steps > self._slowest + limit

    @staticmethod
    def _key(rank: int, index: int) -> str:
        return f"steps/{index}/{rank}"
