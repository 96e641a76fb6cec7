"""How ranks hear of a stop while their main threads are busy; used from a thread of its own."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable

from lightning_elche.control.requests import StopCause
from lightning_elche.coordination.stopping.run_control import RunControl
from lightning_elche.distributed.control_store import ControlStore
from lightning_elche.exceptions import PeerLost

__all__ = ["CLAIM_S", "StopLink"]

SOLO_KEY = "solo"
CLAIM_S, CLAIM_PERIOD_S = 2.0, 0.1


class StopLink:
    """Tells the other ranks why this one stops, and hears it from them.

    Args:
        store: That all ranks share.
        control: Of this rank.
        rank: This rank.
    """

    def __init__(self, store: ControlStore, control: RunControl, rank: int) -> None:
        self._store, self._control, self._rank = store, control, rank
        self._has_told = False

    def exchange(self) -> None:
        """Tell and hear; from any thread.

        Raises:
            PeerLost: If the store does not answer.
        """
        control = self._control
        if not control.stop:
            word = self._store.stop_word()
            if word is None:
                return
            heard = json.loads(word)
            self._has_told = True
            control.request_stop(StopCause(heard["cause"]), heard["reason"])
        if not self._has_told:
            self._store.post_stop(self._word())
            self._has_told = True
        self._store.hurry()  # anew in each window, should an event have overtaken it

    def may_save_alone(
        self, wait_s: float = CLAIM_S, sleep: Callable[[float], object] = time.sleep
    ) -> bool:
        """Return whether this rank saves where the ranks do not meet any more.

        Rank 0 does; the others do where it does not claim that in time.

        Args:
            wait_s: How long it may take, in seconds.
            sleep: Waits for so many seconds.
        """
        try:
            if self._rank == 0:
                self._store.first_value(SOLO_KEY, "0")
                return True
            for _ in range(round(wait_s / CLAIM_PERIOD_S)):
                if self._store.value(SOLO_KEY) is not None:
                    return False
                sleep(CLAIM_PERIOD_S)
        except PeerLost:  # so is rank 0, or whoever hosts the store
            return True
        return True

    def _word(self) -> str:
        control = self._control
        return json.dumps(
            {
                "cause": int(control.stop),
                "reason": control.reason,
                "rank": self._rank,
                "host": socket.gethostname(),
            }
        )
