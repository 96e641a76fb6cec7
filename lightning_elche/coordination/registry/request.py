"""What is asked of the registry and what it answers; all of it travels as JSON."""

from __future__ import annotations

import math
import socket
import uuid
from dataclasses import dataclass, field
from typing import Protocol

from lightning_elche.coordination.registry.capacity import Machine
from lightning_elche.coordination.registry.liveness import Process, own_process
from lightning_elche.coordination.registry.wire import OnWire

__all__ = ["FINAL", "Beat", "Decision", "GrantsLeases", "Lease", "Request", "Rule"]

FINAL = frozenset({"too_large"})  # codes of refusals that waiting does not change


@dataclass(frozen=True, kw_only=True)
class Request(OnWire):
    """A task that wants to start.

    Args:
        kind: What it is: train, worker, sweep, eval, pipeline, loop, export.
        host: Where it will run. Default: here.
        process: Who holds the lease; it is free again when this has ended. Default: this process.
        run: What is started again and again under this name has a breaker of its own.
        gpus: How many GPUs it uses. Without `vram_bytes` it has them alone.
        vram_bytes: GPU memory that it needs, on all of them together.
        ram_bytes: Memory that it needs.
        machine: What the host has; 0 and "" where that is not known. Default: not known.
        weight: Its share where several split a host.
        reservation: The name of one that it may use.
        wait: If it is refused, keep a place in the queue of its kind.
        ticket: That place, from an earlier answer.
        expected_s: How long it will take, `None` if that is not known.
        threshold: What is short on the host, in words, "" if nothing is.
        id: Of the lease that it may get. Who asks again with the same one, since the answer was
            lost, gets no second lease.

    Example:
        >>> request = Request(kind="train", gpus=1)
        >>> Request.from_dict(request.to_dict()) == request
        True
    """

    kind: str
    host: str = field(default_factory=socket.gethostname)
    process: Process = field(default_factory=own_process)
    run: str = ""
    gpus: int = 0
    vram_bytes: int = 0
    ram_bytes: int = 0
    machine: Machine = field(default_factory=Machine)
    weight: float = 1.0
    reservation: str = ""
    wait: bool = False
    ticket: str | None = None
    expected_s: float | None = None
    threshold: str = ""
    id: str = field(default_factory=lambda: uuid.uuid4().hex)

    def __post_init__(self) -> None:
        """Validate."""
        for name in ("kind", "host", "id"):
            if not getattr(self, name):
                raise ValueError(f"`{name}` must not be empty, got {getattr(self, name)!r}.")
        for name in ("gpus", "vram_bytes", "ram_bytes"):
            number = getattr(self, name)
            if isinstance(number, bool) or not isinstance(number, int) or number < 0:
                raise ValueError(f"`{name}` must be a whole number >= 0, got {number!r}.")
        if not 0.0 < self.weight < math.inf:
            raise ValueError(f"`weight` must be > 0 and finite, got {self.weight}.")
        if self.expected_s is not None and not 0.0 <= self.expected_s < math.inf:
            raise ValueError(f"`expected_s` must be >= 0 and finite, got {self.expected_s}.")


@dataclass(frozen=True, kw_only=True)
class Lease(OnWire):
    """Permission to run, held by a process.

    Attributes:
        id: Unique.
        kind: Of the task, as all up to `reservation` from its request.
        host: Where it runs.
        process: Whose it is.
        run: What its breaker is called by.
        gpus: How many.
        vram_bytes: On all of them.
        ram_bytes: Of memory.
        weight: Its share.
        reservation: That it uses, or "".
        since_s: When it was given, on the clock of the registry.
        beat_s: When its process was heard of last, on that clock.
        has_progressed: Whether it has done something useful, so that its start has succeeded.
        requested: The part of the host's time that it asks for, `None` if it takes no part in
            the splitting.
    """

    id: str
    kind: str
    host: str
    process: Process
    run: str
    gpus: int
    vram_bytes: int
    ram_bytes: int
    weight: float
    reservation: str
    since_s: float
    beat_s: float
    has_progressed: bool = False
    requested: float | None = None


@dataclass(frozen=True, kw_only=True)
class Rule:
    """One rule of admission, as it stands.

    Attributes:
        code: The answer if it refuses.
        is_met: Whether it lets the task start.
        reason: Its numbers, in words.
        retry_after_s: When to ask again, if it refuses.
    """

    code: str
    is_met: bool
    reason: str
    retry_after_s: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Decision(OnWire):
    """Whether a task may start.

    Attributes:
        allowed: Whether.
        code: "admitted", or the rule that refused: "halted", "paused", "breaker_open", "queued",
            "reserved", "host_limit", "cluster_limit", "too_large", "capacity", "threshold",
            "peak_hours", "backpressure", "cooldown", "rate_limited"; or "not_enforced",
            "unreachable", where the registry was not asked or did not answer.
        reason: The same in words, with numbers.
        retry_after_s: When it makes sense to ask again, if refused.
        delay_s: How long to wait before the start, if allowed.
        lease: What was given.
        ticket: The place in the queue, to ask again with.
        rules: All rules, if they were asked for.
    """

    allowed: bool
    code: str
    reason: str
    retry_after_s: float = 0.0
    delay_s: float = 0.0
    lease: Lease | None = None
    ticket: str | None = None
    rules: tuple[Rule, ...] = ()

    @classmethod
    def refused(cls, rule: Rule) -> Decision:
        """Return the refusal of a rule."""
        return cls(
            allowed=False, code=rule.code, reason=rule.reason, retry_after_s=rule.retry_after_s
        )


@dataclass(frozen=True, kw_only=True)
class Beat(OnWire):
    """The answer to a sign of life.

    Attributes:
        is_held: Whether the lease is still there.
        grant: The part of the host's time that the task may use, `None` if it asked for none.
    """

    is_held: bool
    grant: float | None = None


class GrantsLeases(Protocol):
    """The registry, here or on another host, as a task sees it."""

    def admit(self, request: Request) -> Decision:
        """Return whether the task may start, with a lease if so."""
        ...

    def cancel(self, ticket: str) -> None:
        """Give up a place in the queue."""
        ...

    def progress(self, lease_id: str) -> None:
        """Take in that the start of the task has succeeded."""
        ...

    def heartbeat(
        self,
        lease_id: str,
        *,
        requested: float | None = None,
        utilization_pct: float | None = None,
        vram_peak_bytes: int | None = None,
        ram_peak_bytes: int | None = None,
        cores_used: float | None = None,
    ) -> Beat:
        """Take a sign of life."""
        ...

    def release(self, lease_id: str, *, succeeded: bool | None) -> bool:
        """Take a lease back."""
        ...
