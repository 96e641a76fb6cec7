"""The options of a fit on several ranks, and their checks."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

from lightning_elche.control.cadence import CadenceConfig
from lightning_elche.control.chunks import ChunkConfig
from lightning_elche.control.guard import GuardConfig
from lightning_elche.control.outer import OuterOptimizer
from lightning_elche.control.schedule import Policy

__all__ = ["RunConfig", "check_choice", "check_left_out", "check_positive"]

NOT_IN_NODES = ("outer_optimizer", "compression")


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """The options that `ElCheStrategy` and `ElCheLoop` have in common.

    Args:
        cadence: How often ranks meet.
        chunks: How the batches of an epoch are dealt.
        guard: When divergence between replicas limits the cadence.
        policy: What ends a window: "cadence", "async", or "sync".
        backend: How they are exchanged: "device" stops all ranks for it, "cpu" does not.
        outer_optimizer: What to make of the average of the parameters; `None` to take it as it is.
        compression: Exchange parameters as they are, "none", or as "bf16" differences.
        group: Average over the "world" at every event, or inside each "node" and over the world at
            every k-th event, so rarely that it fits in the overhead target.
        optimizer_state: "average" the states of optimizers with the parameters, or "keep" them.
        optimizer_state_every: Average them at every n-th averaging event.
        weighting: What a rank's parameters weigh: "samples", "uniform", or "auto".
        snapshot_timeout_s: With `backend="cpu"`, how long ranks wait for the snapshot of another
            one before they drop the attempt and repeat it, in seconds.
        timeout_s: Longest wait for a peer in seconds.
    """

    cadence: CadenceConfig = field(default_factory=CadenceConfig)
    chunks: ChunkConfig = field(default_factory=ChunkConfig)
    guard: GuardConfig = field(default_factory=GuardConfig)
    policy: Policy = "cadence"
    backend: Literal["device", "cpu"] = "device"
    outer_optimizer: OuterOptimizer | None = None
    compression: Literal["none", "bf16"] = "none"
    group: Literal["world", "node"] = "world"
    optimizer_state: Literal["average", "keep"] = "average"
    optimizer_state_every: int = 1
    weighting: Literal["auto", "samples", "uniform"] = "auto"
    snapshot_timeout_s: float = 5.0
    timeout_s: float = 1800.0

    def __post_init__(self) -> None:
        """Validate."""
        check_choice("policy", self.policy, ("sync", "cadence", "async"))
        check_choice("backend", self.backend, ("device", "cpu"))
        check_choice("compression", self.compression, ("none", "bf16"))
        check_choice("group", self.group, ("world", "node"))
        if self.group == "node":
            _check_nodes(self)
        check_choice("optimizer_state", self.optimizer_state, ("average", "keep"))
        if self.optimizer_state_every < 1:
            raise ValueError(
                f"`optimizer_state_every` must be >= 1, got {self.optimizer_state_every}."
            )
        if self.optimizer_state == "keep" and self.optimizer_state_every > 1:
            raise ValueError(
                '`optimizer_state_every` must be left out with `optimizer_state="keep"`, which '
                f"averages no states, got {self.optimizer_state_every}."
            )
        check_choice("weighting", self.weighting, ("auto", "samples", "uniform"))
        check_positive("snapshot_timeout_s", self.snapshot_timeout_s)
        check_positive("timeout_s", self.timeout_s)

    @property
    def exchanges_in_background(self) -> bool:
        """Whether ranks train on while their replicas are exchanged."""
        return self.backend == "cpu" and self.policy != "sync"

    @property
    def may_run_ahead(self) -> bool:
        """Whether ranks may train beyond their planned steps, also on the next epoch."""
        return self.policy == "async" or self.exchanges_in_background

    @property
    def max_batch_diff(self) -> int | None:
        """How far a rank may be ahead; where none runs ahead the events see to that."""
        return self.cadence.max_batch_diff if self.may_run_ahead else None


def check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    """Raise a ValueError that names the option, unless `value` is one of `choices`."""
    if value not in choices:
        listed = ", ".join(f'"{choice}"' for choice in choices)
        raise ValueError(f"`{name}` must be one of {listed}, got {value!r}.")


def check_positive(name: str, value: float) -> None:
    """Raise a ValueError that names the option, unless `value` is positive and finite."""
    if not (value > 0.0 and math.isfinite(value)):
        raise ValueError(f"`{name}` must be a positive number, got {value}.")


def check_left_out(config: RunConfig, names: tuple[str, ...], *, why: str, fix: str) -> None:
    """Raise a ValueError that names the option, unless all of `names` have their defaults.

    Args:
        config: The options.
        names: Those that must be left out.
        why: With what, and for which reason.
        fix: What to do instead.
    """
    for name in names:
        value = getattr(config, name)
        if value != getattr(RunConfig, name):
            raise ValueError(f"`{name}` must be left out with {why}, got {value!r}. {fix}")


def _check_nodes(config: RunConfig) -> None:
    """Refuse what needs the average of all ranks at every event."""
    why = '`group="node"`, since only some of its events average over all ranks'
    check_left_out(config, NOT_IN_NODES, why=why, fix="Remove one of them.")
    if config.policy == "sync":
        raise ValueError(
            '`group` must be "world" with `policy="sync"`, which keeps all ranks equal, got "node".'
            ' Set `policy="cadence"`.'
        )
