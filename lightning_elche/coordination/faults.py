"""What follows from faults inside a run: batches that do not fit, parameters that are spoiled."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["FaultConfig", "HealLadder", "OomLadder", "Rung"]


@dataclass(frozen=True, kw_only=True)
class FaultConfig:
    """What to do about faults of one rank.

    Args:
        oom: "skip" a batch that does not fit into memory, or "raise".
        nonfinite: Parameters with values that are not finite at an averaging event: "heal" the rank
            by the average of the others, or "raise", which ends the run.
        max_consecutive: Batches in a row that do not fit, before the rank does something about it;
            averaging events in a row at which it had to be healed, before the run ends.
        max_sit_outs: How often in a row the rank sits out before the run ends: for 1 averaging
            event, then for 2, then for 4, with one batch tried after each.
        redeal_skipped: Deal skipped batches once more, to another rank, where one pool deals them.
    """

    oom: Literal["skip", "raise"] = "skip"
    nonfinite: Literal["heal", "raise"] = "heal"
    max_consecutive: int = 5
    max_sit_outs: int = 3
    redeal_skipped: bool = False

    def __post_init__(self) -> None:
        """Validate."""
        if self.oom not in ("skip", "raise"):
            raise ValueError(f'`oom` must be "skip" or "raise", got {self.oom!r}.')
        if self.nonfinite not in ("heal", "raise"):
            raise ValueError(f'`nonfinite` must be "heal" or "raise", got {self.nonfinite!r}.')
        if self.max_consecutive < 1:
            raise ValueError(f"`max_consecutive` must be >= 1, got {self.max_consecutive}.")
        if not 0 <= self.max_sit_outs <= 10:
            raise ValueError(
                f"`max_sit_outs` must be from 0 to 10, got {self.max_sit_outs}. The n-th one takes "
                "2 ** (n - 1) averaging events."
            )


@dataclass(frozen=True, kw_only=True)
class Rung:
    """What a rank does after a batch that did not fit into memory, beside skipping it.

    Attributes:
        action: "skip": nothing; "halve" the batch size; "sit_out"; "stop" the run.
        events: For how many averaging events it sits out.
        failures: Batches in a row that did not fit.
    """

    action: Literal["skip", "halve", "sit_out", "stop"]
    events: int = 0
    failures: int


class OomLadder:
    """Counts the batches that do not fit into memory, and says what to do about them.

    Args:
        config: How many are too many.

    Example:
        >>> ladder = OomLadder(FaultConfig(max_consecutive=1, max_sit_outs=2))
        >>> [ladder.skipped(can_halve=False).action for _ in range(3)]
        ['sit_out', 'sit_out', 'stop']
    """

    def __init__(self, config: FaultConfig | None = None) -> None:
        self._config = config or FaultConfig()
        self.reset()

    def reset(self) -> None:
        """Forget all failures."""
        self._failures = 0
        self._since_rung = 0
        self._sit_outs = 0

    @property
    def is_probing(self) -> bool:
        """Whether the next batch decides if the rank sits out once more."""
        return self._sit_outs > 0

    def learnt(self) -> None:
        """Take in a batch that did fit."""
        if self._failures:
            self.reset()

    def skipped(self, *, can_halve: bool) -> Rung:
        """Take in a batch that did not fit, and return what to do.

        Args:
            can_halve: Whether the batch size can be halved.
        """
        config = self._config
        self._failures += 1
        self._since_rung += 1
        if not self.is_probing and self._since_rung < config.max_consecutive:
            return Rung(action="skip", failures=self._failures)
        self._since_rung = 0
        if can_halve and not self.is_probing:
            return Rung(action="halve", failures=self._failures)
        if self._sit_outs >= config.max_sit_outs:
            return Rung(action="stop", failures=self._failures)
        self._sit_outs += 1
        return Rung(action="sit_out", events=2 ** (self._sit_outs - 1), failures=self._failures)

    def __repr__(self) -> str:
        return f"OomLadder(failures={self._failures}, sit_outs={self._sit_outs})"


class HealLadder:
    """Counts the averaging events in a row at which a rank was spoiled.

    Args:
        config: How many are too many.
    """

    def __init__(self, config: FaultConfig | None = None) -> None:
        config = config or FaultConfig()
        self._max = config.max_consecutive if config.nonfinite == "heal" else 1
        self.reset()

    def reset(self) -> None:
        """Forget all failures."""
        self._failures = 0

    @property
    def failures(self) -> int:
        """Events in a row at which the rank was spoiled."""
        return self._failures

    def report(self, *, is_finite: bool) -> bool:
        """Take in an event, and return whether the run ends.

        Args:
            is_finite: Whether the rank was sound.
        """
        self._failures = 0 if is_finite else self._failures + 1
        return self._failures >= self._max

    def __repr__(self) -> str:
        return f"HealLadder(failures={self._failures}, max={self._max})"
