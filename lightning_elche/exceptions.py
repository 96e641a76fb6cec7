"""The errors that a caller may want to catch; everything else is a built-in exception."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import Any

    from lightning_elche.contracts.verdicts import Finding, Violation

__all__ = [
    "AdmissionDenied",
    "AggregationError",
    "BreakerTripped",
    "ContractError",
    "DeadlineExceeded",
    "ElCheError",
    "FlatSizeError",
    "GateViolation",
    "MisalignedCollective",
    "MixedTensorsError",
    "NoGradientsError",
    "PeerLost",
    "RankFailed",
    "RankMismatch",
    "RecoveryHalted",
    "RegistryUnreachable",
    "ScheduleDiverged",
    "WeightsError",
    "WorkerBusy",
]


class ElCheError(Exception):
    """Base of all errors of this package that are not built-in ones."""


class MisalignedCollective(ElCheError, RuntimeError):
    """A collective was asked for between two averaging events, where ranks are not aligned.

    Attributes:
        call: What was called, for example `"Strategy.reduce"`.
    """

    def __init__(self, call: str, fix: str) -> None:
        super().__init__(
            f"`{call}` needs all ranks at once, but was called inside a training step, where each "
            "rank is at a step of its own. It would pair with another step of a peer, or hang. "
            f"{fix}"
        )
        self.call = call


class RankMismatch(ElCheError, RuntimeError):
    """Ranks were started with different models, data or samplers.

    Attributes:
        what: The thing that differs: `"model"` or `"data"`.
    """

    def __init__(self, what: str, message: str) -> None:
        super().__init__(message)
        self.what = what


class RankFailed(ElCheError, RuntimeError):
    """Another rank raised an exception, so this one stops too.

    Attributes:
        rank: The rank that failed first.
        cause: Its exception as text.
    """

    def __init__(self, rank: int, cause: str) -> None:
        super().__init__(
            f"Rank {rank} failed with {cause}. This rank stops because of it; the traceback of "
            f"rank {rank} is in its own output."
        )
        self.rank = rank
        self.cause = cause


class PeerLost(ElCheError, RuntimeError):
    """Peers did not arrive at an averaging event in time, or their connection closed.

    Attributes:
        missing: The ranks that had not announced themselves, if they are known.
    """

    def __init__(self, missing: tuple[int, ...], message: str) -> None:
        super().__init__(message)
        self.missing = missing


class ContractError(ElCheError, ValueError):
    """A contract is not valid.

    Attributes:
        findings: What is wrong with it, errors and the rest.
    """

    def __init__(self, message: str, findings: tuple[Finding, ...]) -> None:
        super().__init__(message, findings)
        self.findings = findings

    def __str__(self) -> str:
        return str(self.args[0])


class GateViolation(ElCheError, RuntimeError):
    """A training contract was broken: the run is aborted, on all ranks.

    Attributes:
        violation: What was broken, and by which value.
        gate: Id of the gate, such as "GATE-TRAIN-005".
        status: Name of the abort, such as "DIVERGENCE".
        step: The optimizer step, if it was one.
        epoch: The epoch, if it was one.
        field: Name of the value, such as "train_loss".
        value: The value; `None` where it was absent or no number.
        limit: What it was compared to, if to a number.
        rank: The rank on which it was.
        is_child: Whether this process was started by another rank.

    Example:
        >>> from lightning_elche.contracts import Contract, GateSession, RunFacts
        >>> session = GateSession(Contract.default(), RunFacts(mode="finetune"))
        >>> err = GateViolation(session.val(epoch=0, val_loss=31.99))
        >>> err.gate, err.exit_code
        ('GATE-TRAIN-005', 25)
    """

    def __init__(self, violation: Violation, rank: int = 0, is_child: bool = False) -> None:
        super().__init__(violation, rank, is_child)
        self.violation = violation
        self.gate, self.status = violation.gate, violation.abort.name
        self.step, self.epoch, self.field = violation.step, violation.epoch, violation.field
        self.value, self.limit = violation.value, violation.limit
        self.rank = rank
        self.is_child = is_child

    def __str__(self) -> str:
        return f"{self.violation.message} (rank {self.rank}, {self.violation.gate})"

    @property
    def exit_code(self) -> int:
        """What the job should end with."""
        return self.violation.exit_code


class AggregationError(ElCheError, RuntimeError):
    """Gradients of several tasks cannot be made into one."""


class NoGradientsError(AggregationError):
    """There is no task, or none reaches a parameter that is trained."""


class MixedTensorsError(AggregationError, TypeError):
    """Tensors differ in device or dtype, and nothing is moved or cast."""


class WeightsError(AggregationError, ValueError):
    """Weights do not fit what they weigh."""


class FlatSizeError(AggregationError, ValueError):
    """A flat vector has another number of elements than the tensors it stands for."""


class RecoveryHalted(ElCheError, RuntimeError):
    """A spoiled run cannot be repaired, or was repaired too often: it ends, on all ranks.

    Attributes:
        reason: Why.
        step: The optimizer step of this rank.
        level: The safety level.
        rank: The rank that could not go on.
        is_poisoned: Whether the parameters are still the spoiled ones.
        is_child: Whether this process was started by another rank.
        exit_code: What the job should end with.
    """

    exit_code = 40

    def __init__(
        self,
        reason: str,
        step: int,
        level: int,
        rank: int = 0,
        is_poisoned: bool = False,
        is_child: bool = False,
    ) -> None:
        super().__init__(reason, step, level, rank, is_poisoned, is_child)
        self.reason = reason
        self.step, self.level, self.rank = step, level, rank
        self.is_poisoned, self.is_child = is_poisoned, is_child

    def __str__(self) -> str:
        state = "spoiled" if self.is_poisoned else "those before the damage"
        return (
            f"{self.reason} (rank {self.rank}, step {self.step}). The parameters in memory are "
            f"{state}."
        )


class DeadlineExceeded(ElCheError, TimeoutError):
    """A task was not over by its deadline.

    Attributes:
        name: Of the task.
        timeout_s: Seconds that it had.
    """

    def __init__(self, name: str, timeout_s: float) -> None:
        super().__init__(name, timeout_s)
        self.name, self.timeout_s = name, timeout_s

    def __str__(self) -> str:
        return f"Task {self.name!r} was not over within {self.timeout_s:g} seconds."


class WorkerBusy(ElCheError, RuntimeError):
    """A worker takes no task: its queue is full, or all its threads are stuck.

    Attributes:
        name: Of the task.
        reason: Why.
    """

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(name, reason)
        self.name, self.reason = name, reason

    def __str__(self) -> str:
        return f"Task {self.name!r} was not taken: {self.reason}."


class ScheduleDiverged(ElCheError, RuntimeError):
    """A run that follows the recorded schedule of another one does not do the same.

    Attributes:
        event: The first averaging event at which it does not.
        rank: The first rank that does not.
        field: What differs in the report of that rank.
        expected: What was recorded.
        actual: What is.
    """

    def __init__(self, event: int, rank: int, field: str, expected: float, actual: float) -> None:
        super().__init__(event, rank, field, expected, actual)
        self.event, self.rank, self.field = event, rank, field
        self.expected, self.actual = expected, actual

    def __str__(self) -> str:
        return (
            f"The run differs from the recorded one at averaging event {self.event}: `{self.field}`"
            f" of rank {self.rank} was {self.expected!r}, got {self.actual!r}."
        )


class AdmissionDenied(ElCheError, RuntimeError):
    """A run may not start now.

    Attributes:
        decision: Why, and when to ask again; it has a `reason`.
    """

    def __init__(self, decision: Any) -> None:  # noqa: ANN401  # of the layer above
        super().__init__(decision)
        self.decision = decision

    def __str__(self) -> str:
        return f"The run may not start: {getattr(self.decision, 'reason', self.decision)}"


class BreakerTripped(ElCheError, RuntimeError):
    """Something has failed too often: it is not tried again.

    Attributes:
        key: What, such as "rank:1:oom".
        failures: How often in a row.
    """

    def __init__(self, key: str, failures: int) -> None:
        super().__init__(key, failures)
        self.key, self.failures = key, failures

    def __str__(self) -> str:
        return f"{self.key} has failed {self.failures} times in a row"

    @classmethod
    def from_words(cls, words: str) -> BreakerTripped:
        """Return the error that another rank has told of as text."""
        key, _, rest = words.partition(" has failed ")
        count = rest.partition(" ")[0]
        return cls(key, int(count) if count.isdecimal() else 0)


class RegistryUnreachable(ElCheError, ConnectionError):
    """The registry of runs does not answer."""
