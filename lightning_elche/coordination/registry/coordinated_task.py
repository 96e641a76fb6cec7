"""A block of code that runs when the registry lets it."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Generator
from dataclasses import replace
from functools import partial
from types import TracebackType

from lightning_elche.coordination.registry.lease_keeper import UNREACHABLE, LeaseKeeper
from lightning_elche.coordination.registry.machine import read_machine
from lightning_elche.coordination.registry.request import (
    FINAL,
    Decision,
    GrantsLeases,
    Lease,
    Request,
)

__all__ = ["CoordinatedTask", "ask"]

SHORTEST_POLL_S, LONGEST_POLL_S = 0.05, 5.0


class CoordinatedTask:
    """A task that holds a lease while its block runs, with `with` or `async with`.

    If the registry refuses, the block runs all the same, with `allowed` False: look at it first.
    An exception in the block is a failure of the task, and is raised again; what ends the process,
    such as Ctrl-C, is not.

    Args:
        kind: What it is: train, worker, sweep, eval, pipeline, loop, export.
        registry: Gives leases.
        gpus: How many GPUs it uses. Without `vram_bytes` it has them alone.
        vram_bytes: GPU memory that it needs, on all of them together.
        ram_bytes: Memory that it needs.
        run: What is started again and again under this name has a breaker of its own.
        reservation: The name of one that it may use.
        wait: Wait in the queue of its kind until it may start. Default: do not.
        timeout_s: For so long at most. Default: without end.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from lightning_elche.coordination.registry.database import Database
        >>> from lightning_elche.coordination.registry.registry import Registry
        >>> registry = Registry(Database(Path(tempfile.mkdtemp()) / "registry.db"))
        >>> with CoordinatedTask("eval", registry=registry) as task:
        ...     if task.allowed:
        ...         task.mark_progress()
        >>> task.decision.code, registry.leases()
        ('admitted', ())
    """

    def __init__(
        self,
        kind: str,
        *,
        registry: GrantsLeases,
        gpus: int = 0,
        vram_bytes: int = 0,
        ram_bytes: int = 0,
        run: str = "",
        reservation: str = "",
        wait: bool = False,
        timeout_s: float | None = None,
    ) -> None:
        if timeout_s is not None and not timeout_s > 0.0:
            raise ValueError(f"`timeout_s` must be > 0, or None for no end, got {timeout_s}.")
        if timeout_s is not None and not wait:
            raise ValueError(f"`timeout_s` must come with `wait=True`, got {timeout_s} without.")
        self._registry, self._timeout_s = registry, timeout_s
        self._request = partial(
            Request,
            kind=kind,
            gpus=gpus,
            vram_bytes=vram_bytes,
            ram_bytes=ram_bytes,
            run=run,
            reservation=reservation,
            wait=wait,
        )
        self._request()  # what is not valid is told here
        self._decision: Decision | None = None
        self._keeper: LeaseKeeper | None = None

    @property
    def allowed(self) -> bool:
        """Whether the registry has let it start."""
        return self._decision is not None and self._decision.allowed

    @property
    def decision(self) -> Decision:
        """What the registry has answered.

        Raises:
            RuntimeError: If it has not been asked.
        """
        if self._decision is None:
            raise RuntimeError("`decision` exists once the task has been entered, by `with`.")
        return self._decision

    @property
    def lease(self) -> Lease | None:
        """What the task holds, `None` if it was refused."""
        return self.decision.lease

    def mark_progress(self) -> None:
        """Tell that the task has done something useful, so that its start has succeeded."""
        if self._keeper is not None:
            self._keeper.mark_progress()

    def __enter__(self) -> CoordinatedTask:
        try:
            with contextlib.closing(self._asking()) as pauses:
                for pause_s in pauses:
                    time.sleep(pause_s)
        except BaseException as err:  # an interrupt of the waiting
            self.__exit__(type(err), err, None)
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        del kind, traceback
        keeper, self._keeper = self._keeper, None
        if keeper is not None:
            is_stopped = error is not None and not isinstance(error, Exception)
            keeper.release(succeeded=None if is_stopped else error is None)

    async def __aenter__(self) -> CoordinatedTask:
        pauses = self._asking()
        try:
            while (pause_s := await _in_thread(lambda: next(pauses, None))) is not None:
                await asyncio.sleep(pause_s)
        except BaseException as err:
            pauses.close()
            self.__exit__(type(err), err, None)
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        # A cancelled task was stopped from outside.
        await _in_thread(lambda: self.__exit__(kind, error, traceback))

    def _asking(self) -> Generator[float, None, None]:
        """Ask until there is an answer to stay with; yields the pauses to make between."""
        request = self._request(machine=read_machine())
        self._decision = yield from ask(self._registry, request, timeout_s=self._timeout_s)
        if self._decision.lease is not None:
            self._keeper = LeaseKeeper(self._registry, self._decision.lease.id)
        if self._decision.delay_s > 0.0:
            yield self._decision.delay_s


def ask(
    registry: GrantsLeases,
    request: Request,
    *,
    timeout_s: float | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> Generator[float, None, Decision]:
    """Ask until a request is admitted, or its time is up; return the last answer.

    It yields the seconds to wait before it goes on. If it is closed, its place in the queue is
    given up. A registry that does not answer counts as one that refuses.

    Args:
        registry: Gives leases.
        request: Whether it waits is said there.
        timeout_s: When to give up; `None` for never.
        clock: Seconds that only grow.
    """
    deadline_s = None if timeout_s is None else clock() + timeout_s
    decision: Decision | None = None
    try:
        while True:
            decision = _answer(registry, request)
            if decision.allowed or decision.code in FINAL or not request.wait:
                return decision
            ticket = decision.ticket or request.ticket
            request = replace(request, ticket=ticket)
            pause_s = min(LONGEST_POLL_S, max(SHORTEST_POLL_S, decision.retry_after_s))
            if deadline_s is not None:
                left_s = deadline_s - clock()
                if left_s <= 0.0:
                    return decision
                pause_s = min(pause_s, left_s)
            yield pause_s
    finally:
        if request.ticket is not None and not (decision and decision.allowed):
            with contextlib.suppress(*UNREACHABLE):
                registry.cancel(request.ticket)


def _answer(registry: GrantsLeases, request: Request) -> Decision:
    try:
        return registry.admit(request)
    except UNREACHABLE as err:
        return Decision(allowed=False, code="unreachable", reason=str(err), retry_after_s=1.0)


async def _in_thread(call: Callable[[], float | None]) -> float | None:
    """Make a call on a thread, and see its end even if the waiting is cancelled."""
    task = asyncio.ensure_future(asyncio.to_thread(call))
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait([task])
        raise
