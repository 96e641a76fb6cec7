"""Overshoot: how far a rank without work may train ahead into the next epoch."""

from __future__ import annotations

from typing import TypedDict

from lightning_elche.control.chunks import ChunkConfig
from lightning_elche.control.guard import GuardAction
from lightning_elche.control.schedule import Plan

__all__ = ["Overshoot", "OvershootState", "may_look_ahead"]


class OvershootState(TypedDict):
    """What `Overshoot.state_dict` returns; JSON-serialisable."""

    batches: int
    value: int


class Overshoot:
    """The steps that a rank may make beyond its planned ones, on batches of the next epoch.

    It starts at a hundredth of the epoch's batches (2 to 5) and grows by one per stable averaging
    event up to a fiftieth (3 to 10). Replicas that drift apart stop the growth, and far ones undo
    it. A number set by hand stays as it is.

    Args:
        config: Bounds.

    Example:
        >>> overshoot = Overshoot(ChunkConfig())
        >>> overshoot.open_epoch(400)
        >>> overshoot.report(GuardAction.STABLE)
        >>> overshoot.value
        5
    """

    def __init__(self, config: ChunkConfig | None = None) -> None:
        self.config = config or ChunkConfig()
        self.reset()

    @property
    def value(self) -> int:
        """The present bound; 0 before the first epoch, and where ranks may not look ahead."""
        return self._value

    def reset(self) -> None:
        """Forget epochs and events."""
        self._batches = 0
        self._value = 0

    def open_epoch(self, batches: int) -> None:
        """Take in that an epoch of `batches` begins; what has grown stays within its bounds.

        Args:
            batches: Batches that all ranks together train in it, 0 where they are not dealt.
        """
        self._batches = batches
        self._value = min(max(self._value, self._initial), self._limit)

    def report(self, action: GuardAction) -> None:
        """Take in one averaging event, by what the guard decided on it."""
        if action is GuardAction.STABLE:
            self._value = min(self._value + 1, self._limit)
        elif action is GuardAction.TIGHTEN:
            self._value = self._initial

    def state_dict(self) -> OvershootState:
        """Return everything that `load_state_dict` needs."""
        return OvershootState(batches=self._batches, value=self._value)

    def load_state_dict(self, state: OvershootState) -> None:
        """Continue from `state`."""
        self._batches = state["batches"]
        self._value = min(max(state["value"], self._initial), self._limit)

    def __repr__(self) -> str:
        return f"Overshoot(value={self._value}, batches={self._batches})"

    @property
    def _initial(self) -> int:
        return self._bounded(_clamp(self._batches // 100, 2, 5))

    @property
    def _limit(self) -> int:
        return self._bounded(_clamp(self._batches // 50, 3, 10))

    def _bounded(self, automatic: int) -> int:
        config = self.config
        if not self._batches or not config.lookahead_epochs:
            return 0
        wanted = automatic if config.max_overshoot is None else config.max_overshoot
        return min(wanted, config.overshoot_ceiling)


def may_look_ahead(plan: Plan, rank: int, *, steps: int, in_flight: int) -> bool:
    """Decide whether `rank`, out of work in this epoch, may take one more batch of the next one.

    The step on that batch must be one of its planned steps of the window, or one of the
    `max_overshoot` beyond. The slowest rank never looks ahead: at the end of the epoch all others
    would wait for the end of its step. Nobody does before it is known which rank that is.

    Args:
        plan: The agreed plan.
        rank: The rank that asks.
        steps: Its steps since the last averaging event.
        in_flight: Batches that it has claimed and not trained; they come first.
    """
    if plan.max_overshoot < 1 or not plan.is_calibrated or rank == plan.slowest:
        return False
    return steps + in_flight < plan.local_steps[rank] + plan.max_overshoot


def _clamp(value: int, low: int, high: int) -> int:
    return max(low, min(value, high))
