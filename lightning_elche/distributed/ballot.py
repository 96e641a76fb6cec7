"""Whether all ranks handed in a snapshot in time: all exchange, or none does."""

from __future__ import annotations

import time
from collections.abc import Callable

from lightning_elche.distributed.control_store import ControlStore
from lightning_elche.exceptions import PeerLost

__all__ = ["Ballot"]

GO, DROP = "go", "drop"


class Ballot:
    """Decides on the store, once and for all ranks, what becomes of an attempt to average.

    A collective that one rank gave up would break the process group for the others. So an attempt
    is decided before: "go" by the rank that completes it, or "drop" by one that has waited too
    long, whichever comes first. A dropped attempt is followed by another one.

    Args:
        store: The run's control store.
        world_size: Number of ranks.
        patience_s: How long a rank waits for the others' snapshots, in seconds.
        timeout_s: After how many seconds of attempts to take the missing ranks for lost.
        clock: Monotonic seconds.
    """

    def __init__(
        self,
        store: ControlStore,
        *,
        world_size: int,
        patience_s: float,
        timeout_s: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._world_size = world_size
        self._patience_s = patience_s
        self._timeout_s = timeout_s
        self._clock = clock
        self._index = 0
        self._attempt = 0
        self._began: float | None = None

    def join(self, index: int) -> None:
        """Hand in this rank's snapshot for event `index`, at the attempt that is still open."""
        if self._began is None:
            self._index, self._attempt, self._began = index, 0, self._clock()
        while self._store.value(self._verdict_key) == DROP:
            self._attempt += 1
        self._joined = self._clock()
        self._store.add(self._count_key, 1)

    def is_complete(self) -> bool | None:
        """Return whether all exchange (`True`) or none does (`False`), `None` if that is open.

        Raises:
            PeerLost: If attempts were dropped for longer than the timeout.
        """
        assert self._began is not None
        now = self._clock()
        if self._store.add(self._count_key, 0) >= self._world_size:
            verdict = self._store.first_value(self._verdict_key, GO)
        elif now - self._joined > self._patience_s:
            verdict = self._store.first_value(self._verdict_key, DROP)
        else:
            return None
        if verdict == GO:
            return True
        if now - self._began > self._timeout_s:
            raise PeerLost(
                (),
                f"No attempt to average was joined by all ranks within `timeout_s`="
                f"{self._timeout_s:g}. A rank has ended or hangs; raise `snapshot_timeout_s` if "
                "one training step can take longer than that.",
            )
        self._attempt += 1
        return False

    def close(self, rank: int) -> int:
        """Forget the event, which all ranks have decided, and return the attempts dropped."""
        dropped = self._attempt
        if rank == 0:
            for self._attempt in range(dropped + 1):
                self._store.delete(self._count_key)
                self._store.delete(self._verdict_key)
        self._began = None
        return dropped

    @property
    def _count_key(self) -> str:
        return f"snapshots/{self._index}/{self._attempt}"

    @property
    def _verdict_key(self) -> str:
        return f"{self._count_key}/verdict"
