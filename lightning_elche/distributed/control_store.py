"""Counters and flags on the process group's store: agreement without waiting."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable

import torch.distributed as dist
from torch.distributed import DistError, PrefixStore, Store  # type: ignore[attr-defined]  # not in the stubs

from lightning_elche.exceptions import PeerLost, RankFailed

__all__ = ["ControlStore", "default_store"]

FAILURE_KEY, KNOWN_KEY, LEFT_KEY, STOP_KEY = "failure", "failure/known", "left", "stop"
CHECK_PERIOD_S = 0.5
KNOWN_S = 5.0
LEAVE_PERIOD_S = 0.005
OVERDUE = "The other ranks did not meet this one in the time that there was to stop."


def default_store() -> Store:
    """Return the store of the default process group."""
    return dist.distributed_c10d._get_default_store()


class ControlStore:
    """What ranks tell each other between averaging events.

    One operation costs 40-90 microseconds and never waits for a peer.

    Args:
        store: A store that all ranks share. Its client takes one operation at a time, so that the
            thread of an exchange in the background may look for failures, too.
        prefix: A name unique to the run, since several runs of a process share one store.
        clock: Monotonic seconds.

    Attributes:
        may_wait: Returns whether there is time to wait for other ranks.
    """

    def __init__(
        self, store: Store, prefix: str, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._store = PrefixStore(prefix, store)
        self._clock = clock
        self._next_check = 0.0
        self.may_wait: Callable[[], bool] = _always
        self._hurry_key, self._is_hurried = "hurry/0", False

    def start_window(self, index: int) -> None:
        """Forget that a rank was in a hurry; all ranks have left the event before `index`."""
        self._hurry_key, self._is_hurried = f"hurry/{index}", False

    def add(self, key: str, amount: int) -> int:
        """Add `amount` to a counter that starts at 0 and return its new value.

        Raises:
            PeerLost: If the store does not answer, which means that rank 0's host is gone.
        """
        try:
            return int(self._store.add(key, amount))
        except DistError as err:
            raise _lost(err) from err

    def first_value(self, key: str, value: str) -> str:
        """Return what the first rank to call this for `key` passed as `value`.

        Raises:
            PeerLost: If the store does not answer.
        """
        try:
            return self._store.compare_set(key, "", value).decode()
        except DistError as err:
            raise _lost(err) from err

    def value(self, key: str) -> str | None:
        """Return the value of `key`, `None` if nobody has set it.

        Raises:
            PeerLost: If the store does not answer.
        """
        try:
            return self._store.get(key).decode() if self._store.check([key]) else None
        except DistError as err:
            raise _lost(err) from err

    def delete(self, key: str) -> None:
        """Forget `key`.

        Raises:
            PeerLost: If the store does not answer.
        """
        try:
            self._store.delete_key(key)
        except DistError as err:
            raise _lost(err) from err

    def post_failure(self, rank: int, cause: str) -> None:
        """Tell all ranks that `rank` has failed; the first failure is kept."""
        self.first_value(FAILURE_KEY, json.dumps({"rank": rank, "cause": cause}))

    def post_cause(self, rank: int, cause: str) -> None:
        """Leave word why `rank` ends the run at the next averaging event."""
        self.first_value(f"cause/{rank}", cause)

    def cause(self, rank: int) -> str:
        """Return why `rank` ended the run."""
        return self.value(f"cause/{rank}") or "an error"

    def wait_until_known(self, rank: int, *, world_size: int) -> None:
        """Say that `rank` knows of the failure; rank 0 waits up to 5 seconds until all do.

        It may host the store, which ends with it.
        """
        self._count_up(KNOWN_KEY, world_size if rank == 0 else 0, period_s=CHECK_PERIOD_S / 10)

    @property
    def is_hurried(self) -> bool:
        """Whether a rank wants to meet at once, as of the last look at the store."""
        return self._is_hurried

    def hurry(self) -> None:
        """Ask all ranks to meet at once; they hear of it when they look for failures."""
        if not self._is_hurried:
            key = self._hurry_key
            self.add(key, 1)
            self._is_hurried = key == self._hurry_key  # else a thread was overtaken by the event

    def listen(self) -> None:
        """Look whether a rank is in a hurry, from any thread."""
        if not self._is_hurried:
            key = self._hurry_key
            self._is_hurried = self.value(key) is not None and key == self._hurry_key

    def post_stop(self, word: str) -> None:
        """Tell all ranks why to stop, from any thread; what was told first is kept."""
        self.first_value(STOP_KEY, word)

    def stop_word(self) -> str | None:
        """Return why to stop, `None` if nobody has asked for it; from any thread."""
        return self.value(STOP_KEY)

    def wait_until_all_leave(self, *, world_size: int) -> None:
        """Wait, up to 5 seconds, for all ranks to call this: none needs a connection then."""
        # A store that does not answer has ended with rank 0, which has seen all others leave.
        with contextlib.suppress(PeerLost):
            self._count_up(LEFT_KEY, world_size, period_s=LEAVE_PERIOD_S)

    def _count_up(self, key: str, count: int, *, period_s: float) -> None:
        """Add 1 to a counter, and wait up to 5 seconds for it to reach `count`."""
        deadline = self._clock() + KNOWN_S
        present = self.add(key, 1)
        while present < count and self._clock() < deadline:
            time.sleep(period_s)
            present = self.add(key, 0)

    def raise_if_failed(self, *, at_once: bool = False) -> None:
        """Raise if a rank has posted a failure; take notice if one is in a hurry.

        Args:
            at_once: Ask the store even if it was asked less than 0.5 seconds ago.

        Raises:
            RankFailed: Naming the rank and its error.
            PeerLost: If the store does not answer, or there is no time left to wait.
        """
        if not self.may_wait():
            raise PeerLost((), OVERDUE)
        now = self._clock()
        if now < self._next_check and not at_once:
            return
        self._next_check = now + CHECK_PERIOD_S
        failure = self.value(FAILURE_KEY)
        if failure is not None:
            raise RankFailed(**json.loads(failure))
        self.listen()


def _always() -> bool:
    return True


def _lost(err: Exception) -> PeerLost:
    return PeerLost(
        (0,),
        f"The store of the process group does not answer ({err}). Rank 0, or the agent that hosts "
        "the store, has ended; its own output says why.",
    )
