"""Which ranks have agreed to the next averaging event, without any of them waiting."""

from __future__ import annotations

import time
from collections.abc import Callable

from lightning_elche.distributed.control_store import ControlStore
from lightning_elche.distributed.polling import pauses
from lightning_elche.exceptions import PeerLost

__all__ = ["Agreement"]

MIN_POLL_S, MAX_POLL_S = 0.0002, 0.01


class Agreement:
    """Counts the ranks that have agreed to one averaging event after the other.

    Args:
        store: The run's control store.
        rank: This rank.
        world_size: Number of ranks.
        timeout_s: How long after this rank the others may agree, in seconds.
        clock: Monotonic seconds.
    """

    def __init__(
        self,
        store: ControlStore,
        *,
        rank: int,
        world_size: int,
        timeout_s: float,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._store = store
        self._rank = rank
        self._world_size = world_size
        self._timeout_s = timeout_s
        self._clock = clock
        self._posted_at: float | None = None
        self._index = 0

    @property
    def is_posted(self) -> bool:
        """Whether this rank has agreed to the present event."""
        return self._posted_at is not None

    def start(self, index: int) -> None:
        """Turn to event `index`; all ranks have left the one before."""
        if self.is_posted:
            self._store.delete(self._rank_key(self._rank))
            if self._rank == 0:
                self._store.delete(self._key)
        self._index = index
        self._posted_at = None

    def post(self) -> None:
        """Agree to the present event, in the name of this rank."""
        self._store.add(self._rank_key(self._rank), 1)
        self._store.add(self._key, 1)
        self._posted_at = self._clock()

    def is_reached(self) -> bool:
        """Ask the store whether all ranks have agreed.

        Raises:
            PeerLost: Naming the missing ranks, if they have not within the timeout.
            RankFailed: If a rank has posted a failure.
        """
        self._store.raise_if_failed()
        if self._store.add(self._key, 0) >= self._world_size:
            return True
        if self._posted_at is not None and self._clock() - self._posted_at > self._timeout_s:
            raise self._lost()
        return False

    def wait(self, wait_s: float) -> bool:
        """Wait up to `wait_s` seconds for all ranks to agree, and return whether they have.

        Raises:
            PeerLost: As `is_reached`.
            RankFailed: As `is_reached`.
        """
        began = self._clock()
        naps = pauses(MIN_POLL_S, MAX_POLL_S)
        while self._clock() - began < wait_s:
            if self.is_reached():
                return True
            next(naps)
        return False

    @property
    def _key(self) -> str:
        return f"agreed/{self._index}"

    def _rank_key(self, rank: int) -> str:
        return f"{self._key}/{rank}"

    def _lost(self) -> PeerLost:
        ranks = range(self._world_size)
        missing = tuple(rank for rank in ranks if not self._store.add(self._rank_key(rank), 0))
        return PeerLost(
            missing,
            f"Ranks {list(missing)} did not agree to average within `timeout_s`="
            f"{self._timeout_s:g}. They have ended or hang; raise `timeout_s` if one averaging "
            "window can take that long.",
        )
