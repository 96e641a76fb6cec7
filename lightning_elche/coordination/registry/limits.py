"""How many tasks of a kind may run, and how fast they may start."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal

__all__ = ["CLASSES", "CLUSTER", "KIND_RATES", "PER_HOST", "LimitsConfig", "start_delay_s"]

PER_HOST: Mapping[str, int | None] = MappingProxyType({"train": 1, "worker": 32, "export": 2})
CLUSTER: Mapping[str, int | None] = MappingProxyType(
    {"train": 3, "worker": 500, "sweep": 1, "eval": 2, "pipeline": 1, "loop": 1}
)
# What a task mostly needs.
CLASSES: Mapping[str, Literal["CPU", "GPU", "HYBRID", "IO"]] = MappingProxyType(
    {
        "train": "GPU",
        "worker": "CPU",
        "sweep": "GPU",
        "eval": "CPU",
        "pipeline": "HYBRID",
        "loop": "HYBRID",
        "export": "IO",
    }
)
KIND_RATES: Mapping[str, tuple[float, int]] = MappingProxyType({"worker": (30.0, 5)})
SLOW_FROM_RATIO = 0.8
FIRST_DELAY_S, LAST_DELAY_S = 1.0, 5.0


@dataclass(frozen=True, kw_only=True)
class LimitsConfig:
    """When a task may start.

    Args:
        admission: "none": always; "enforce": when the registry says so; "auto": the same, unless
            SLURM, Kubernetes, Ray or torchrun on several nodes has placed the run already.
        kind: Of this run: train, worker, sweep, eval, pipeline, loop, export, or one that
            `per_host` or `cluster` adds.
        per_host: Tasks of a kind at once on a host; kinds that are not named keep their default,
            `None` lifts it.
        cluster: The same over all hosts.
        rate_per_min: Starts per minute, of all kinds.
        burst: Starts that may come at once after a quiet time.
        cooldown_s: Seconds between two starts on a host.
        window_s: How far back starts are counted.
        window_max: Starts in that time after which there is none; from 80 % of it on, a start is
            asked to wait 1 to 5 seconds.
        capacity: "fixed": as `per_host` says; "measured": not more of `kind` than memory and cores
            allow by what former tasks used.
        dynamic: `{min, max}`: the number of `kind` on a host moves between these, by one each 30
            seconds, with how busy the host is. `None`: it does not.
        on_unreachable: Whether to "deny" or "allow" a start when the registry does not answer.
        weight: The share of this run where several split a host.

    Example:
        >>> limits = LimitsConfig(per_host={"train": 2})
        >>> limits.per_host["train"], limits.per_host["worker"], limits.cluster["train"]
        (2, 32, 3)
    """

    admission: Literal["none", "auto", "enforce"] = "none"
    kind: str = "train"
    per_host: Mapping[str, int | None] = field(default_factory=lambda: dict(PER_HOST))
    cluster: Mapping[str, int | None] = field(default_factory=lambda: dict(CLUSTER))
    rate_per_min: float = 60.0
    burst: int = 10
    cooldown_s: float = 1.0
    window_s: float = 60.0
    window_max: int = 30
    capacity: Literal["fixed", "measured"] = "fixed"
    dynamic: Mapping[str, int] | None = None
    on_unreachable: Literal["deny", "allow"] = "deny"
    weight: float = 1.0

    def __post_init__(self) -> None:
        """Validate, and fill in the kinds that are not named."""
        _check_choice("admission", self.admission, ("none", "auto", "enforce"))
        _check_choice("capacity", self.capacity, ("fixed", "measured"))
        _check_choice("on_unreachable", self.on_unreachable, ("deny", "allow"))
        for name, defaults in (("per_host", PER_HOST), ("cluster", CLUSTER)):
            given = getattr(self, name)
            _check_counts(name, given)
            object.__setattr__(self, name, {**defaults, **given})
        for name in ("rate_per_min", "window_s", "weight"):
            _check_positive(name, getattr(self, name))
        for name in ("burst", "window_max"):
            if getattr(self, name) < 1:
                raise ValueError(f"`{name}` must be >= 1, got {getattr(self, name)}.")
        if not 0.0 <= self.cooldown_s < math.inf:
            raise ValueError(f"`cooldown_s` must be >= 0 and finite, got {self.cooldown_s}.")
        if self.dynamic is not None:
            _check_dynamic(self.dynamic)
        self.check_kind(self.kind)

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds that there are."""
        return tuple(sorted({*self.per_host, *self.cluster}))

    def check_kind(self, kind: str) -> None:
        """Check that there is such a kind of task.

        Raises:
            ValueError: If there is not.
        """
        if kind not in self.kinds:
            raise ValueError(
                f"`kind` must be one of {', '.join(self.kinds)}, got {kind!r}. Add it to "
                "`per_host` or `cluster` to give it a limit."
            )


def start_delay_s(limits: LimitsConfig, num_starts: int) -> float:
    """Return how long a start should wait after so many others in the window.

    Example:
        >>> [start_delay_s(LimitsConfig(), n) for n in (23, 24, 27, 30)]
        [0.0, 1.0, 3.0, 5.0]
    """
    slow_from = SLOW_FROM_RATIO * limits.window_max
    if num_starts < slow_from:
        return 0.0
    part = (num_starts - slow_from) / (limits.window_max - slow_from)
    return FIRST_DELAY_S + (LAST_DELAY_S - FIRST_DELAY_S) * min(1.0, part)


def _check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ValueError(f"`{name}` must be one of {', '.join(choices)}, got {value!r}.")


def _check_positive(name: str, value: float) -> None:
    if not 0.0 < value < math.inf:
        raise ValueError(f"`{name}` must be > 0 and finite, got {value}.")


def _check_counts(name: str, counts: Mapping[str, int | None]) -> None:
    for kind, count in counts.items():
        if count is not None and (isinstance(count, bool) or count != int(count) or count < 0):
            raise ValueError(
                f"`{name}` must give each kind a whole number >= 0, or None for no limit, got "
                f"{count!r} for {kind!r}."
            )


def _check_dynamic(dynamic: Mapping[str, int]) -> None:
    if set(dynamic) != {"min", "max"} or not 0 <= dynamic["min"] <= dynamic["max"]:
        raise ValueError(
            f"`dynamic` must be None or {{min: a, max: b}} with 0 <= a <= b, got {dict(dynamic)}."
        )
