"""ElChe: how many steps each rank makes between two averaging events."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypedDict

__all__ = ["CadenceConfig", "ElChe", "ElCheState"]

MIN_OVERHEAD_TARGET, MAX_OVERHEAD_TARGET = 0.01, 0.50
MIN_SMOOTHING, MAX_SMOOTHING = 0.1, 0.8
DEAD_ZONE_RATIO = 0.10


@dataclass(frozen=True, kw_only=True)
class CadenceConfig:
    """How often ranks meet.

    Args:
        anchor: Steps of the slowest rank between two averaging events at the start ("H" in Local
            SGD).
        min_anchor: Lowest anchor that the controller tunes down to. Default: `anchor`.
        max_anchor: Highest anchor that the controller tunes up to.
        overhead_target: Share of a window that exchanging parameters may cost, 0.01 to 0.50.
            Above it the anchor grows, below half of it the anchor shrinks.
        max_batch_diff: One update moves a rank's step count by at most this many steps. With
            `backend="cpu"` or `policy="async"` a rank that many steps ahead of the slowest since
            the last event also waits; 0 is lockstep. Default: no limit.
        speed_hint: Relative step times known beforehand, for example `{1: 2.3}`: rank 1 is 2.3x
            slower. Ranks not named count as 1. Measured speeds replace it at the first event.

    Example:
        >>> CadenceConfig(anchor=20, max_anchor=100).lowest_anchor
        20
    """

    anchor: int = 10
    min_anchor: int | None = None
    max_anchor: int = 200
    overhead_target: float = 0.05
    max_batch_diff: int | None = None
    speed_hint: Mapping[int, float] | None = None

    def __post_init__(self) -> None:
        """Validate and clamp."""
        if self.anchor < 1:
            raise ValueError(f"`anchor` must be >= 1, got {self.anchor}.")
        low = self.lowest_anchor
        if not 1 <= low <= self.anchor:
            raise ValueError(f"`min_anchor` must be in [1, `anchor`={self.anchor}], got {low}.")
        if self.max_anchor < self.anchor:
            raise ValueError(
                f"`max_anchor` must be >= `anchor` ({self.anchor}), got {self.max_anchor}. "
                "Raise `max_anchor` or lower `anchor`."
            )
        if self.max_batch_diff is not None and self.max_batch_diff < 0:
            raise ValueError(f"`max_batch_diff` must be >= 0 or None, got {self.max_batch_diff}.")
        if math.isnan(self.overhead_target):
            raise ValueError("`overhead_target` must be a number in [0.01, 0.50], got nan.")
        clamped = min(max(self.overhead_target, MIN_OVERHEAD_TARGET), MAX_OVERHEAD_TARGET)
        object.__setattr__(self, "overhead_target", clamped)
        for rank, ratio in (self.speed_hint or {}).items():
            if rank < 0 or not (ratio > 0 and math.isfinite(ratio)):
                raise ValueError(
                    "`speed_hint` must map ranks to positive step-time ratios, got "
                    f"{{{rank}: {ratio}}}."
                )

    @property
    def lowest_anchor(self) -> int:
        """`min_anchor`, or `anchor` where it is not set."""
        return self.anchor if self.min_anchor is None else self.min_anchor


class ElCheState(TypedDict):
    """What `ElChe.state_dict` returns; JSON-serialisable."""

    anchor: int
    ms_per_batch: list[float]
    local_steps: list[int]
    is_calibrated: bool


class ElChe:
    """Measures every rank's speed and derives the next step counts from it.

    The rank with the longest batch anchors the cadence; a rank that is k times faster makes k times
    as many steps in the same wall time. A cost of O(world_size) per report.

    Args:
        world_size: Number of ranks, at least 2.
        config: Limits and targets.

    Example:
        >>> elche = ElChe(2)
        >>> elche.report(compute_ms=[170.0, 680.0], steps=[10, 10], transfer_ms=5.0)
        >>> elche.local_steps
        (40, 10)
    """

    def __init__(self, world_size: int, config: CadenceConfig | None = None) -> None:
        if world_size < 2:
            raise ValueError(
                f"`world_size` must be >= 2, got {world_size}. One rank never averages."
            )
        self.world_size = world_size
        self.config = config or CadenceConfig()
        hinted = max(self.config.speed_hint or {0: 1.0})
        if hinted >= world_size:
            raise ValueError(
                f"`speed_hint` must name ranks below {world_size}, got rank {hinted}. "
                "Remove it or start more ranks."
            )
        self.reset()

    def reset(self) -> None:
        """Forget all measurements."""
        self._anchor = self.config.anchor
        self._ms = [0.0] * self.world_size
        self._is_calibrated = False
        hint = self.config.speed_hint
        self._steps = [self._anchor] * self.world_size
        if hint:
            self._steps = self._counts([hint.get(rank, 1.0) for rank in range(self.world_size)])

    @property
    def anchor(self) -> int:
        """Steps of the slowest rank between two averaging events."""
        return self._anchor

    @property
    def local_steps(self) -> tuple[int, ...]:
        """Steps of each rank between two averaging events, length `world_size`."""
        return tuple(self._steps)

    @property
    def ms_per_batch(self) -> tuple[float, ...]:
        """Smoothed time of one batch on each rank in milliseconds, 0 where it is unknown."""
        return tuple(self._ms)

    @property
    def is_calibrated(self) -> bool:
        """Whether every rank's speed has been measured."""
        return self._is_calibrated

    @property
    def slowest(self) -> int:
        """The rank with the longest batch; the lowest such rank on a tie."""
        return max(range(self.world_size), key=lambda rank: (self._ms[rank], -rank))

    @property
    def anchor_wall_ms(self) -> float:
        """Wall time of one window in milliseconds, 0 before calibration."""
        return self._anchor * max(self._ms) if self._is_calibrated else 0.0

    @property
    def shares(self) -> tuple[float, ...]:
        """Each rank's part of the total throughput, summing to 1."""
        if self._is_calibrated:
            speeds = [1.0 / ms for ms in self._ms]
        else:
            speeds = [float(steps) for steps in self._steps]
        total = sum(speeds)
        return tuple(speed / total for speed in speeds)

    def report(
        self,
        *,
        compute_ms: Sequence[float],
        steps: Sequence[int],
        transfer_ms: float,
        hold: bool = False,
    ) -> None:
        """Take in one window.

        Args:
            compute_ms: Time each rank spent training, length `world_size`.
            steps: Steps each rank really made, length `world_size`.
            transfer_ms: Time that exchanging parameters took. Waiting for a peer is idle time and
                does not belong here, else a straggler would inflate the anchor.
            hold: Forbid the anchor to grow, see `ConvergenceGuard`.
        """
        for rank in range(self.world_size):
            self._measure(rank, compute_ms[rank], steps[rank])
        # The last window of an epoch is a short one; it says nothing about the cadence.
        window_ms = max(*compute_ms, self.anchor_wall_ms)
        was_calibrated = self._is_calibrated
        self._is_calibrated = all(ms > 0.0 for ms in self._ms)
        if window_ms > 0.0 and transfer_ms > 0.0:
            self._tune_anchor(transfer_ms / window_ms, hold=hold)
        if self._is_calibrated:
            self._update_steps(self._counts(self._ms), always=not was_calibrated)

    def tighten(self, factor: float) -> None:
        """Shorten the window to `factor` of its steps; may go below `min_anchor`, never longer."""
        self._anchor = max(1, math.ceil(self._anchor * min(max(factor, 0.1), 1.0)))
        if self._is_calibrated:
            self._update_steps(self._counts(self._ms), always=True)
        else:
            self._steps = [min(steps, self._anchor) for steps in self._steps]

    def lengthen(self, window_ms: float) -> None:
        """Let the window last so long at least, if speeds are known; never beyond `max_anchor`."""
        if not self._is_calibrated:
            return
        steps = min(math.ceil(window_ms / max(self._ms)), self.config.max_anchor)
        self._anchor = max(self._anchor, steps)
        self._update_steps(self._counts(self._ms), always=True)

    def clamp_total(self, total: int) -> tuple[int, ...]:
        """Scale the step counts so that they sum to `total`, each at least 1.

        Raises:
            ValueError: If `total` is below `world_size`.
        """
        if total < self.world_size:
            raise ValueError(f"`total` must be >= {self.world_size} (one per rank), got {total}.")
        whole = sum(self._steps)
        counts = [max(1, steps * total // whole) for steps in self._steps]
        for index in range(total - sum(counts)):
            counts[index % self.world_size] += 1
        while sum(counts) > total:  # the floor of 1 took too much
            counts[counts.index(max(counts))] -= 1
        return tuple(counts)

    def state_dict(self) -> ElCheState:
        """Return everything that `load_state_dict` needs."""
        return ElCheState(
            anchor=self._anchor,
            ms_per_batch=list(self._ms),
            local_steps=list(self._steps),
            is_calibrated=self._is_calibrated,
        )

    def load_state_dict(self, state: ElCheState) -> None:
        """Continue from `state`; measurements of another number of ranks are not used."""
        if len(state["ms_per_batch"]) != self.world_size:
            return
        self._anchor = state["anchor"]
        self._ms = list(state["ms_per_batch"])
        self._steps = list(state["local_steps"])
        self._is_calibrated = state["is_calibrated"]

    def __repr__(self) -> str:
        ms = ", ".join(f"{value:.3g}" for value in self._ms)
        return f"ElChe(anchor={self._anchor}, local_steps={self.local_steps}, ms_per_batch=[{ms}])"

    def _measure(self, rank: int, compute_ms: float, steps: int) -> None:
        if steps <= 0 or compute_ms <= 0.0:
            return
        new, old = compute_ms / steps, self._ms[rank]
        if old <= 0.0:
            self._ms[rank] = new
            return
        weight = min(max(abs(new - old) / old, MIN_SMOOTHING), MAX_SMOOTHING)
        self._ms[rank] = weight * new + (1.0 - weight) * old

    def _tune_anchor(self, overhead: float, *, hold: bool) -> None:
        config = self.config
        if overhead > config.overhead_target and not hold:
            # Growing jumps to where the target would be met, shrinking creeps: too frequent events
            # cost time at once, too rare ones cost accuracy slowly.
            grown = math.ceil(self._anchor * overhead / config.overhead_target)
            self._anchor = min(max(grown, config.lowest_anchor), config.max_anchor)
        elif overhead < config.overhead_target / 2 and self._anchor > config.lowest_anchor:
            self._anchor -= 1

    def _counts(self, ms: Sequence[float]) -> list[int]:
        slow = max(ms)
        return [max(1, round(self._anchor * slow / value)) for value in ms]

    def _update_steps(self, counts: Sequence[int], *, always: bool) -> None:
        limit = self.config.max_batch_diff
        slowest = self.slowest
        for rank, new in enumerate(counts):
            old = self._steps[rank]
            is_inside = abs(new - old) <= DEAD_ZONE_RATIO * old
            if is_inside and not always and rank != slowest:
                continue
            bounded = new if limit is None else min(max(new, old - limit), old + limit)
            self._steps[rank] = max(1, bounded)
