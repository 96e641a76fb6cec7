"""When ranks that make every step together stop, save and pause: at a step that is told ahead."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from lightning.pytorch import Callback
from typing_extensions import override

from lightning_elche.coordination.stopping.run_control import RunControl
from lightning_elche.coordination.stopping.stop import lockstep_stop
from lightning_elche.distributed.control_store import ControlStore
from lightning_elche.loops.stop_link import StopLink

if TYPE_CHECKING:
    from lightning.pytorch import Trainer

__all__ = ["Lockstep", "call_last"]

PAUSE_POLL_S = 0.2
NUM_STEPS = 20
STOP_AT = "stop_at"


class Lockstep:
    """The steps at which all ranks do something, on one device or on several in lockstep.

    Rank 0 names a step that is a second and two steps ahead, so that all have heard of it in time.
    On one device there is nobody to tell.

    Args:
        control: Of this rank.
        rank: This rank.
        store: That all ranks share; `None` on one device.
        clock: Seconds that only grow.
        sleep: Waits for so many seconds.
    """

    def __init__(
        self,
        control: RunControl,
        rank: int,
        store: ControlStore | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], object] = time.sleep,
    ) -> None:
        self._control, self._rank, self._store = control, rank, store
        self._clock, self._sleep = clock, sleep
        self.link = None if store is None else StopLink(store, control, rank)
        self._steps = 0
        self._step_s: deque[float] = deque(maxlen=NUM_STEPS)
        self._stepped_at = clock()
        self._at: dict[str, int] = {}
        self._saves = self._pauses = 0

    def exchange(self) -> None:
        """Tell and hear of steps; from a thread of its own."""
        if self.link is None:
            return
        self.link.exchange()
        control = self._control
        self._agree(STOP_AT, bool(control.stop))
        self._agree(f"save/{self._saves}", control.checkpoint)
        self._agree(f"pause/{self._pauses}", control.pause)

    def step(self) -> None:
        """Take in that a step is over."""
        now = self._clock()
        self._steps += 1
        self._step_s.append(now - self._stepped_at)
        self._stepped_at = now

    @property
    def is_wanted(self) -> bool:
        """Whether anything is to be done at this step or a later one."""
        control = self._control
        return bool(self._at or control.stop or control.pause or control.checkpoint)

    @property
    def stops(self) -> bool:
        """Whether all ranks stop after the present step."""
        return self._is_due(STOP_AT, bool(self._control.stop))

    def saves(self) -> bool:
        """Return whether all ranks save after the present step; once for each request."""
        is_due = self._is_due(f"save/{self._saves}", self._control.checkpoint)
        if is_due:
            self._at.pop(f"save/{self._saves}", None)
            self._saves += 1
            self._control.request_checkpoint(False)
        return is_due

    @property
    def pauses(self) -> bool:
        """Whether all ranks pause after the present step."""
        return self._is_due(f"pause/{self._pauses}", self._control.pause)

    def wait_out_pause(self) -> None:
        """Wait until rank 0 withdraws the pause, or wants to stop."""
        control = self._control
        control.is_paused = True
        try:
            while not self._is_resumed():
                self._sleep(PAUSE_POLL_S)
        finally:
            self._at.pop(f"pause/{self._pauses}", None)
            self._pauses += 1
            control.is_paused = False
            self._stepped_at = self._clock()

    def _is_resumed(self) -> bool:
        key = f"resume/{self._pauses}"
        if self._store is None:
            return not self._control.pause
        if self._rank == 0:
            if not self._control.pause:
                self._store.first_value(key, "0")
                return True
            return False
        return self._store.value(key) is not None

    def _agree(self, what: str, is_wanted: bool) -> None:
        assert self._store is not None
        if what in self._at:
            return
        told: str | None
        if self._rank == 0:
            if not is_wanted:
                return
            # The shortest, since a step that is named too late leaves others waiting in the next.
            shortest_s = min(self._step_s.copy(), default=0.0)
            told = self._store.first_value(what, str(lockstep_stop(self._steps, shortest_s)))
        else:
            told = self._store.value(what)
        if told is not None:
            self._at[what] = int(told)

    def _is_due(self, what: str, is_wanted: bool) -> bool:
        if self._store is None:
            return is_wanted
        at = self._at.get(what)
        return at is not None and self._steps >= at


def call_last(trainer: Trainer, act: Callable[[], object]) -> None:
    """Call `act` at the end of this batch, once all callbacks have been told of it.

    What it saves holds them as they are then; what it raises keeps nobody from hearing.

    Args:
        trainer: Calls its callbacks for the end of a batch at present.
        act: What to do.
    """
    callbacks: list[Any] = trainer.callbacks  # type: ignore[attr-defined]  # set by a connector
    callbacks.append(_Last(act))


class _Last(Callback):
    """Stands at the end of the callbacks until it is called, which costs other batches nothing."""

    def __init__(self, act: Callable[[], object]) -> None:
        self._act = act

    @override
    def on_train_batch_end(self, trainer: Trainer, *args: Any) -> None:
        trainer.callbacks.remove(self)  # type: ignore[attr-defined]
        self._act()
