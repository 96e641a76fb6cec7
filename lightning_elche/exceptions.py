"""The errors that a caller may want to catch; everything else is a built-in exception."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lightning_elche.contracts.verdicts import Finding, Violation

__all__ = [
    "ContractError",
    "ElCheError",
    "GateViolation",
    "MisalignedCollective",
    "PeerLost",
    "RankFailed",
    "RankMismatch",
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
