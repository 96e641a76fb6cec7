"""How the gates of all ranks hear of each other, under any strategy."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, TypeVar

from lightning_elche.callbacks.child_ranks import gather_objects, is_child_rank
from lightning_elche.distributed.abort_reduction import AbortReduction
from lightning_elche.distributed.control_store import ControlStore, default_store

if TYPE_CHECKING:
    from lightning.pytorch import Trainer

    from lightning_elche.typing import AbortSource

__all__ = ["GatePeers"]

T = TypeVar("T")

TIMEOUT_S = 1800.0


class GatePeers:
    """The other ranks of a Trainer.

    Under ElCheStrategy its averaging events carry an abort; elsewhere all ranks make the same
    steps, and one number per step is reduced.

    Args:
        trainer: A fit is under way; every rank creates this at the same point.
        source: Says whether this rank wants an abort.
    """

    def __init__(self, trainer: Trainer, source: AbortSource) -> None:
        self._strategy = trainer.strategy
        self._world_size = trainer.world_size
        self._source = source
        self._has_events = bool(getattr(self._strategy, "is_running", False))
        self._reduction: AbortReduction | None = None
        if self._has_events:
            self._strategy.attach_abort_source(source)  # type: ignore[attr-defined]  # ElCheStrategy
        elif not self.is_alone:
            self._reduction = AbortReduction(timeout_s=TIMEOUT_S)
        self._name = self.from_rank_zero(uuid.uuid4().hex)
        self.is_child = is_child_rank(trainer)

    @property
    def is_alone(self) -> bool:
        """Whether there is but one rank."""
        return self._world_size == 1

    @property
    def has_events(self) -> bool:
        """Whether averaging events carry an abort."""
        return self._has_events

    def end_step(self) -> None:
        """Let all ranks hear of an abort that was wanted a step before; called after every step."""
        if self._reduction is not None:
            self._raise(self._reduction.exchange(self._source.pending_abort()))

    def settle(self) -> None:
        """Let all ranks hear of an abort that is wanted now; they call this at the same point."""
        codes = self.gather(self._source.pending_abort(settle=True))
        if any(codes):
            self._raise((max(codes), codes.index(max(codes))))

    def gather(self, own: T) -> list[T]:
        """Return what each rank has handed in; all call this where they are aligned."""
        return gather_objects(self._strategy, own, world_size=self._world_size)

    def from_rank_zero(self, value: T) -> T:
        """Return what rank 0 has handed in; all ranks call this where they are aligned."""
        return self._strategy.broadcast(value) if not self.is_alone else value

    def close(self) -> None:
        """Let go of what only this fit used, once all ranks have come so far, or after 5 seconds.

        The first one to leave may end the others: a launcher that has forked them kills the rest.
        """
        if not self.is_alone:
            store = ControlStore(default_store(), f"gate/{self._name}")
            store.wait_until_all_leave(world_size=self._world_size)
        if self._reduction is not None:
            self._reduction.close()

    def _raise(self, agreed: tuple[int, int] | None) -> None:
        if agreed is not None:
            code, rank = agreed
            words = self._strategy.broadcast(self._source.words(), src=rank)
            self._source.raise_agreed(code, rank, words)
