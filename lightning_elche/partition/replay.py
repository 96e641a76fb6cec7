"""Replay: the fingerprints of a run, recorded, or verified against those of an earlier one."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

from lightning_elche.partition.errors import (
    InvalidConfig,
    ReplayDivergence,
    ReplayExhausted,
    ReplayIncomplete,
    ReplayStepMismatch,
)
from lightning_elche.partition.fnv import Lanes

__all__ = ["Replay", "ReplayConfig", "ReplayFingerprint"]

MODES = ("off", "record", "verify")
SCOPES = ("full", "model")
ON_DIVERGENCE = ("quarantine", "raise", "warn")
ON_ENV_MISMATCH = ("warn", "raise")


@dataclass(frozen=True)
class ReplayFingerprint:
    """What a state was at a step.

    Args:
        step: The step.
        value: The fingerprint.
        lanes: The sum of its lanes, which other parts can be added to.
        sync_index: Number of the averaging event, where there are any.
    """

    step: int
    value: int
    lanes: Lanes = (0, 0)
    sync_index: int = 0

    def __str__(self) -> str:
        return f"{self.value:#018x}"


@dataclass(frozen=True, kw_only=True)
class ReplayConfig:
    """Whether fingerprints of the run are recorded or verified.

    Args:
        mode: "off", "record", or "verify" against an earlier record.
        expected: That record: a file, or the root of the run that made it.
        scope: What is fingerprinted: the "model", or in "full" the optimizers, too.
        on_divergence: At another fingerprint than the recorded one "raise", save the state in
            "quarantine" and raise, or "warn".
        on_env_mismatch: If the environment is another one than that of the record.
    """

    mode: str = "off"
    expected: str | None = None
    scope: str = "full"
    on_divergence: str = "quarantine"
    on_env_mismatch: str = "warn"

    def __post_init__(self) -> None:
        """Validate."""
        _check_choice("mode", self.mode, MODES)
        _check_choice("scope", self.scope, SCOPES)
        _check_choice("on_divergence", self.on_divergence, ON_DIVERGENCE)
        _check_choice("on_env_mismatch", self.on_env_mismatch, ON_ENV_MISMATCH)
        if (self.expected is not None) != (self.mode == "verify"):
            raise InvalidConfig(
                "`expected` must be given for mode 'verify' and for nothing else, "
                f"got {self.expected!r} for {self.mode!r}."
            )


class Replay:
    """Takes in the fingerprint of each step.

    Args:
        mode: "off", "record" or "verify".
        expected: The recorded ones, in order of their steps, for "verify".

    Example:
        >>> replay = Replay("verify", [ReplayFingerprint(1, 0xAB), ReplayFingerprint(2, 0xCD)])
        >>> replay.report(ReplayFingerprint(1, 0xAB))
        >>> replay.remaining
        1
    """

    def __init__(self, mode: str = "off", expected: Sequence[ReplayFingerprint] = ()) -> None:
        _check_choice("mode", mode, MODES)
        self.mode = mode
        self._expected = tuple(expected)
        self._cursor = 0
        self._recorded: list[ReplayFingerprint] = []

    @property
    def is_on(self) -> bool:
        """Whether fingerprints are wanted at all."""
        return self.mode != "off"

    @property
    def recorded(self) -> tuple[ReplayFingerprint, ...]:
        """Those taken in."""
        return tuple(self._recorded)

    @property
    def cursor(self) -> int:
        """Index of the next expected one."""
        return self._cursor

    @property
    def remaining(self) -> int:
        """How many expected ones are left."""
        return len(self._expected) - self._cursor

    def report(self, fingerprint: ReplayFingerprint) -> None:
        """Check a fingerprint and take it in; after an error nothing has changed.

        Raises:
            ReplayExhausted: If no expected one is left.
            ReplayStepMismatch: If the expected one is of another step.
            ReplayDivergence: If the expected one has another value.
        """
        self.check(fingerprint)
        self.accept(fingerprint)

    def check(self, fingerprint: ReplayFingerprint) -> None:
        """Check a fingerprint, with the errors of `report`."""
        if self.mode != "verify":
            return
        if not self.remaining:
            raise ReplayExhausted(fingerprint.step)
        expected = self._expected[self._cursor]
        if expected.step != fingerprint.step:
            raise ReplayStepMismatch(expected.step, fingerprint.step)
        if expected.value != fingerprint.value:
            raise ReplayDivergence(fingerprint.step, expected.value, fingerprint.value)

    def accept(self, fingerprint: ReplayFingerprint) -> None:
        """Take in a fingerprint unchecked, as after a divergence that is only warned of."""
        if not self.is_on:
            return
        self._recorded.append(fingerprint)
        if self.remaining:
            self._cursor += 1

    def restore(self, step: int) -> None:
        """Go on behind `step`: both the expected ones and those taken in."""
        self._cursor = _first_behind(self._expected, step)
        del self._recorded[_first_behind(self._recorded, step) :]

    def finish(self) -> None:
        """End the run.

        Raises:
            ReplayIncomplete: If expected ones are left.
        """
        if self.remaining:
            raise ReplayIncomplete(self.remaining)

    def __repr__(self) -> str:
        return f"Replay({self.mode!r}, cursor={self._cursor}, remaining={self.remaining})"


def _first_behind(fingerprints: Sequence[ReplayFingerprint], step: int) -> int:
    return bisect_right(fingerprints, step, key=lambda fingerprint: fingerprint.step)


def _check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise InvalidConfig(f"`{name}` must be one of {choices}, got {value!r}.")
