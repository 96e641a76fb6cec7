"""How a rank takes leave of the others when a run ends before its time."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable

from lightning.pytorch.utilities import rank_zero_warn
from lightning.pytorch.utilities.exceptions import SIGTERMException

from lightning_elche.control.events import AveragingEvent
from lightning_elche.control.requests import Requests, StopCause
from lightning_elche.coordination.stopping.run_control import RunControl
from lightning_elche.distributed.collectives import Collectives
from lightning_elche.distributed.control_store import ControlStore
from lightning_elche.distributed.shutdown import leave_groups_at_exit
from lightning_elche.exceptions import (
    BreakerTripped,
    GateViolation,
    MisalignedCollective,
    PeerLost,
    RankFailed,
    RankMismatch,
    RecoveryHalted,
    ScheduleDiverged,
)
from lightning_elche.loops.alignment import Alignment, Phase
from lightning_elche.partition.errors import ReplayError

__all__ = ["LAST_EVENT_S", "LastWords"]

log = logging.getLogger(__name__)

LAST_EVENT_S = 20.0
ABOUT_RANKS = (
    BreakerTripped,
    GateViolation,
    MisalignedCollective,
    PeerLost,
    RankFailed,
    RankMismatch,
    RecoveryHalted,
    ReplayError,
    ScheduleDiverged,
)
# All ranks raise these after one and the same exchange, so that nothing is pending.
AGREED = (BreakerTripped, GateViolation, RecoveryHalted, ScheduleDiverged, SIGTERMException)
OF_LOADERS = (RuntimeError, ConnectionError, EOFError)


class LastWords:
    """Tells the other ranks that this one fails, and learns why others do.

    Args:
        store: The run's control store.
        collectives: How to reach the other ranks; every rank creates this at the same point.
        alignment: Knows whether ranks are aligned.
        control: What this rank was asked for.
        node_rank: The node that this rank is on.
    """

    def __init__(
        self,
        store: ControlStore,
        collectives: Collectives,
        alignment: Alignment,
        control: RunControl,
        *,
        node_rank: int,
    ) -> None:
        self.is_failing = False
        self.abstains = False
        self._store = store
        self._rank, self._world_size = collectives.rank, collectives.world_size
        self._alignment, self._control = alignment, control
        self._has_told_why = False
        pids = collectives.gather([node_rank, os.getpid()])
        self._is_child = [node_rank, os.getppid()] in pids

    def farewell(self, event: AveragingEvent) -> BaseException:
        """Return what to raise on this rank after the event that ends the run."""
        if event.failed_rank is not None:
            return RankFailed(event.failed_rank, self._store.cause(event.failed_rank))
        if event.stop is StopCause.BREAKER:
            return self._control.error or BreakerTripped.from_words(self.why(event))
        return self._control.error or self.exit_by(event.stop)

    def why(self, event: AveragingEvent) -> str:
        """Return in words why the run ends at an event."""
        rank = [report.stop for report in event.reports].index(event.stop)
        return self._store.cause(rank)

    def exit_by(self, cause: StopCause) -> SIGTERMException:
        """Return what ends this process with the exit code of `cause`."""
        # Lightning's launcher kills the rank that it runs in when a child of it ends with an error.
        return SIGTERMException(0 if self._is_child else self._control.config.exit_code_of(cause))

    def requests(self, *, should_stop: bool, needs_alignment: bool = False) -> Requests:
        """Return what this rank asks of all.

        Args:
            should_stop: As of `Requests`.
            needs_alignment: As of `Requests`.
        """
        control = self._control
        if control.stop and not self._has_told_why:
            self._has_told_why = True
            self._store.post_cause(self._rank, control.reason)
        return Requests(
            should_stop=should_stop,
            stop=StopCause.FAILURE if self.is_failing else control.stop,
            alignment=needs_alignment,
            abstains=self.abstains,
            pause=control.pause,
            checkpoint=control.checkpoint,
        )

    def take_part(
        self,
        exception: BaseException,
        meet: Callable[[], AveragingEvent],
        *,
        is_in_step: bool,
    ) -> AveragingEvent | None:
        """Take part in one more averaging event, so that no other rank's work is lost.

        A signal to a whole group of processes ends the workers of a DataLoader, too. What the
        DataLoader then raises is no failure of this rank.

        Args:
            exception: What this rank ends with.
            meet: Meets the other ranks, and returns once all are aligned.
            is_in_step: Whether the rank is in the midst of a step, and abstains.

        Returns:
            The event that ends the run; `None` where there is none: the error was not in a step, is
            about the other ranks, or these do not come in time.
        """
        is_own = isinstance(exception, Exception) and not isinstance(exception, ABOUT_RANKS)
        if self._alignment.phase is not Phase.STEP or not is_own:
            return None
        self.is_failing = not (self._control.stop and isinstance(exception, OF_LOADERS))
        self.abstains = self.is_failing or is_in_step
        try:
            self._store.post_cause(self._rank, _in_words(exception))
            event = meet()
        except (RuntimeError, MemoryError) as err:
            log.warning("The ranks could not be averaged a last time: %s", err)
            return None
        return event if event.stop else None

    def reason(self, exception: BaseException, event: AveragingEvent | None) -> BaseException:
        """Return what this rank raises in the end.

        Args:
            exception: What it ended with.
            event: What `take_part` returned.
        """
        if isinstance(exception, PeerLost) and not self._control.has_time_to_meet():
            return self.exit_by(self._control.stop)
        return exception if event is None or self.is_failing else self.farewell(event)

    def tell(self, exception: BaseException) -> None:
        """Tell the other ranks that this one fails, and stop waiting for them; once per run."""
        if self._alignment.phase is Phase.FAILED:
            return
        self._alignment.phase = Phase.FAILED
        if not isinstance(exception, AGREED):
            leave_groups_at_exit()
        if isinstance(exception, (PeerLost, SIGTERMException)):
            return  # there is nobody to tell, or all know
        try:
            if not isinstance(exception, RankFailed):
                self._store.post_failure(self._rank, _in_words(exception))
            self._store.wait_until_known(self._rank, world_size=self._world_size)
        except PeerLost as lost:
            rank_zero_warn(f"The other ranks could not be told of the failure: {lost}")


def _in_words(exception: BaseException) -> str:
    return f"{type(exception).__name__}: {exception}"
