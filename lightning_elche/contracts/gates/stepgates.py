"""The gates on one rank's step log, judged record by record or many at a time."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from lightning_elche.contracts.gates import ids as gateids
from lightning_elche.contracts.gates.columns import ColumnTotals, totals_if_clean
from lightning_elche.contracts.gates.logtotals import LogTotals
from lightning_elche.contracts.gates.order import StepOrder
from lightning_elche.contracts.gates.steps import (
    FINITE_FIELDS,
    SIX_FIELDS,
    is_clean,
    non_finite_of,
    step_violations,
)
from lightning_elche.contracts.gates.tally import Tally
from lightning_elche.contracts.gates.thresholds import Window, checks_over_steps
from lightning_elche.contracts.gates.totals import EpochTotals, UtilTotals
from lightning_elche.contracts.model import Contract
from lightning_elche.contracts.records import StepColumns, StepLike
from lightning_elche.contracts.strictjson import jsonable, number_of
from lightning_elche.contracts.values import (
    ABSENT,
    plain_record,
    read_float,
    step_of,
    typed_record,
    value_of,
)
from lightning_elche.contracts.verdicts import Abort, GateResult, Location, Violation

__all__ = ["STEP_GATES", "EpochTotals", "StepGates", "UtilTotals"]

STEP_GATES = (gateids.METRICS, gateids.INSTABILITY, gateids.THROUGHPUT, gateids.EXHAUST)
COLUMN_METRICS = {*(spec.name for spec in SIX_FIELDS[1:]), "wall_ms"}
NEEDED = {
    gateids.INSTABILITY: FINITE_FIELDS,
    gateids.THROUGHPUT: ("tokens_per_sec", "gpu_util_pct"),
    gateids.EXHAUST: ("train_loss", "grad_norm"),
}
Record = Mapping[str, object] | StepLike


class StepGates:
    """Judges the step log of one rank.

    Args:
        contract: Says which gates are declared, which fields are required, how many steps may lie
            between two records, and which thresholds there are.
        first_step: The first step that is due.
        path: Of the log, for findings that have no place of their own.

    Attributes:
        path: The same.
        lr_max: Largest learning rate of steps at the sampling period; minus infinity before the
            first.
        needs_mappings: Whether the contract asks for fields that `StepColumns` does not have. Then
            `columns` takes in nothing, and `step` needs mappings with all keys of a record.
    """

    def __init__(
        self, contract: Contract, *, first_step: int = 0, path: str = "train.jsonl"
    ) -> None:
        self.path = path
        self.lr_max = -math.inf
        self._totals = LogTotals()
        self._required = contract.required or SIX_FIELDS
        self._order = StepOrder(first_step, period=contract.sampling_period_steps)
        self._tallies = {gate: Tally(gate) for gate in STEP_GATES if contract.declares(gate)}
        self._windows = {gate: Window(check) for gate, check in checks_over_steps(contract)}
        metrics = {window.check.metric for window in self._windows.values()}
        self.needs_mappings = not (
            set(self._required) <= set(SIX_FIELDS) and metrics <= COLUMN_METRICS
        )

    @property
    def records(self) -> int:
        """Number of records taken in."""
        return self._totals.records

    @property
    def epochs(self) -> Mapping[int, EpochTotals]:
        """What the steps of each epoch add up to, of records that name theirs."""
        return self._totals.epochs

    @property
    def grad_norm_min(self) -> float:
        """Smallest gradient norm if it is negative, else 0."""
        return self._totals.grad_norm_min

    @property
    def lr_min(self) -> float:
        """Smallest learning rate if it is negative, else 0."""
        return self._totals.lr_min

    @property
    def util(self) -> UtilTotals:
        """The values of `gpu_util_pct`."""
        return self._totals.util

    def step(self, record: Record, at: Location | None = None) -> Violation | None:
        """Take in a record and return the first declared gate that it breaks.

        Args:
            record: Its fields may be absent and of any type. Records that a later attempt has
                superseded must not get here.
            at: Where it stands in the log.
        """
        plain = self._clean_record(record)
        if plain is not None:
            self._take_plain(plain)
            return None
        found = self._violations(record)
        for violation in found:
            self._tallies[violation.gate].fail(violation.message, at or Location(path=self.path))
        self._take_any(record)
        return found[0] if found else None

    def offer(self, record: Record) -> Violation | None:
        """Take in a record that breaks no declared gate; else only return the first that it does.

        A poisoned step is never logged, so live it does not count here, either.
        """
        plain = self._clean_record(record)
        if plain is not None:
            self._take_plain(plain)
            return None
        found = self._violations(record)
        if not found:
            self._take_any(record)
        return found[0] if found else None

    def columns(self, columns: StepColumns) -> bool:
        """Take in many records at once if they all are clean and in sequence.

        Returns:
            Whether they were taken in; if not, nothing has changed, and `step` finds out why.
        """
        if self.needs_mappings or not columns.step:
            return not columns.step
        if not self._order.accepts_all(columns.step):
            return False
        totals = totals_if_clean(columns)
        if totals is None:
            return False
        self._take_columns(columns, totals)
        return True

    def broken(self, reason: str, at: Location) -> None:
        """Take in a line that holds no record.

        Args:
            reason: What is wrong with it: the message of the finding.
            at: Where it is.
        """
        for window in self._windows.values():
            window.add(self._order.due, None)
        self._order.take_unreadable()
        for gate, tally in self._tallies.items():
            if gate == gateids.METRICS:
                tally.fail(reason, at)
            else:
                tally.doubt(f"{self.path} has lines that cannot be read")

    def missing(self, reason: str) -> None:
        """Note that there is no log to judge.

        Args:
            reason: Why.
        """
        for tally in self._tallies.values():
            tally.doubt(reason)

    def results(self) -> tuple[GateResult, ...]:
        """Return the verdicts on the declared gates over steps; each keeps its first 20 findings.

        These are 001, 007, 008, EXHAUST as far as steps tell, and thresholds over steps.
        """
        own = [self._result(tally) for tally in self._tallies.values()]
        return (*own, *(window.result(gate) for gate, window in self._windows.items()))

    def state_dict(self) -> dict[str, Any]:
        """Return the state as JSON has it, with the totals of the last epoch only.

        Findings are left out: a live run that has some is over.
        """
        return {
            "totals": self._totals.state_dict(),
            "lr_max": jsonable(self.lr_max),
            "order": self._order.state_dict(),
            "windows": {gate: window.state_dict() for gate, window in self._windows.items()},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from `state`, which gates of the same contract have given."""
        self._totals.load_state_dict(state["totals"])
        self.lr_max = read_float(state["lr_max"])
        self._order.load_state_dict(state["order"])
        for gate, window in self._windows.items():
            window.load_state_dict(state["windows"][gate])

    def _clean_record(self, record: Record) -> StepLike | None:
        """Return a record in which nothing is amiss; `None` if it has to be looked at closely."""
        if self.needs_mappings:
            return None
        plain = typed_record(record)
        if plain is not None and is_clean(plain) and self._order.accepts(plain.step):
            return plain
        return None

    def _violations(self, record: Record) -> list[Violation]:
        """Return the declared gates that a record breaks, in the order of their ids."""
        found = [*step_violations(record, self._required, expected_step=self._order.due)]
        step = step_of(record)
        problem = None if step is None else self._order.problem(step)
        if problem is not None:
            found.append(_out_of_order(*problem))
        declared = (one for one in found if one.gate in self._tallies)
        return sorted(declared, key=lambda one: one.gate)

    def _take_plain(self, record: StepLike) -> None:
        self._totals.add(record)
        if record.step % self._order.period == 0:
            self.lr_max = max(self.lr_max, record.lr)
            for window in self._windows.values():
                window.add(record.step, getattr(record, window.check.metric))
        self._order.take(record.step)

    def _take_any(self, record: Record) -> None:
        """Take in what there is of a record, and doubt the gates that need what is not there."""
        own = step_of(record)
        step = self._order.due if own is None else own
        self._totals.add_any(plain_record(record, step=step))
        if step % self._order.period == 0:
            lr = number_of(value_of(record, "lr"))
            self.lr_max = max(self.lr_max, -math.inf if lr is None else lr)
            for window in self._windows.values():
                window.add(step, number_of(value_of(record, window.check.metric)))
        for gate, tally in self._tallies.items():
            for name in _unknown(record, gate):
                tally.doubt(f"{self.path} has records in which {name} cannot be read")
        if own is None:
            self._order.take_unreadable()
        else:
            self._order.take(own)

    def _take_columns(self, columns: StepColumns, totals: ColumnTotals) -> None:
        self._totals.add_columns(columns, totals)
        sampled = self._order.sampled(columns.step)
        is_all = sampled == slice(None)
        lr_max = totals.lr_max if is_all else max(columns.lr[sampled], default=-math.inf)
        self.lr_max = max(self.lr_max, lr_max)
        for window in self._windows.values():
            values = getattr(columns, window.check.metric)
            window.add_rising(columns.step[sampled], None if values is None else values[sampled])
        self._order.take(columns.step[-1])

    def _result(self, tally: Tally) -> GateResult:
        if self.records or tally.failures or tally.doubts:
            return tally.result(f"{self.records} records")
        empty = Tally(tally.gate)
        if tally.gate == gateids.METRICS:
            empty.fail(f"{self.path} has no records", Location(path=self.path))
        else:
            empty.doubt(f"{self.path} has no records")
        return empty.result("")


def _unknown(record: Record, gate: str) -> Iterator[str]:
    """Yield the fields that a gate needs and cannot judge."""
    if gate == gateids.METRICS:
        yield from () if step_of(record) is not None else ("step",)
    for name in NEEDED.get(gate, ()):
        value = value_of(record, name)
        known = non_finite_of(value) if gate == gateids.INSTABILITY else number_of(value)
        if value is ABSENT or known is None:
            yield name
    if gate == gateids.THROUGHPUT:
        wall_ms = value_of(record, "wall_ms")
        if wall_ms is not ABSENT and wall_ms is not None and number_of(wall_ms) is None:
            yield "wall_ms"


def _out_of_order(step: int, problem: str) -> Violation:
    return Violation(
        gate=gateids.METRICS,
        abort=Abort.METRIC_MISSING,
        message=f"METRIC_MISSING at step {step}: step {problem}",
        step=step,
        field="step",
    )
