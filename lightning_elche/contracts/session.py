"""One run judged by its contract: live, step by step, or afterwards from its files."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from lightning_elche.contracts.aborts import abort_named, gates_failed
from lightning_elche.contracts.facts import RunFacts, epoch_zero_cap
from lightning_elche.contracts.float32 import to_float32
from lightning_elche.contracts.gates import ids as gateids
from lightning_elche.contracts.gates.convergence import EpochEnd, RunEnd
from lightning_elche.contracts.gates.divergence import check_val_loss
from lightning_elche.contracts.gates.epochs import EpochHistory
from lightning_elche.contracts.gates.hyperparameters import (
    judge_hyperparameters,
    judge_provenance,
    resolve_target,
)
from lightning_elche.contracts.gates.stepgates import StepGates
from lightning_elche.contracts.gates.tally import Tally, worst
from lightning_elche.contracts.model import Contract
from lightning_elche.contracts.records import EpochRecord, StepLike, StepRecord, columns_of
from lightning_elche.contracts.strictjson import jsonable
from lightning_elche.contracts.values import read_float
from lightning_elche.contracts.verdicts import Abort, GateResult, Location, Verdict, Violation

__all__ = ["EpochEnd", "GateSession", "RunEnd", "RunFacts"]

JUDGED_ELSEWHERE = (gateids.ARTIFACTS, gateids.REPRODUCIBILITY)


class GateSession:
    """Judges a run.

    Live, a violation that a method returns is to be raised, after ranks have agreed on it, before
    anything is made of the step or the epoch. Only gates that the contract declares are judged.

    Args:
        contract: The rules.
        facts: What the run tells of itself.

    Attributes:
        contract: The same.
        facts: The same.
        steps: The gates over the steps given to this session.

    Example:
        >>> from lightning_elche.contracts.model import Gate
        >>> rule = Gate(id="GATE-TRAIN-005")
        >>> contract = Contract(
        ...     contract_id="C", version="1.0.0", kind="training-loop", family="B", gates=(rule,)
        ... )
        >>> session = GateSession(contract, RunFacts(mode="finetune"))
        >>> session.val(0, 31.99).message
        'DIVERGENCE at epoch 0: val_loss 31.99 > 10 (finetune cap)'
    """

    def __init__(self, contract: Contract, facts: RunFacts) -> None:
        self.contract = contract
        self.facts = facts
        self.steps = StepGates(contract)
        self._history = EpochHistory(contract)
        self._cap = epoch_zero_cap(contract, facts)
        self._target = resolve_target(
            contract, mode=facts.mode, used=facts.hyperparameters, explicit=facts.explicit
        )
        self._cycled_from = math.inf  # the first epoch whose data were repeated
        self._aborts: dict[Violation, Location | None] = {}

    @property
    def val_losses(self) -> Mapping[int, float]:
        """Validation losses of the closed epochs."""
        return self._history.val_losses

    @property
    def best(self) -> float:
        """Smallest validation loss of a closed epoch; infinite before the first."""
        return self._history.progress.best

    @property
    def best_epoch(self) -> int | None:
        """The epoch that had it."""
        return self._history.progress.best_epoch

    @property
    def misses(self) -> int:
        """Number of epochs since then."""
        return self._history.progress.misses

    def step(self, record: Mapping[str, object] | StepLike) -> Violation | None:
        """Take in a step; return what it breaks, and count that as the abort of the run."""
        return self._aborting(self.steps.offer(record))

    def extend(self, records: Sequence[StepRecord]) -> None:
        """Take in steps, in order, in which `is_clean` has found nothing amiss.

        Much faster than one by one.
        """
        if not self.steps.columns(columns_of(records)):
            for record in records:
                self.step(record)

    def val(self, epoch: int, val_loss: float | None) -> Violation | None:
        """Judge a validation loss; return what it breaks, and count that as the abort of the run.

        It does not close the epoch.

        Args:
            epoch: From 0.
            val_loss: Its validation loss, `None` if there is none.
        """
        found = (
            _absent(epoch)
            if val_loss is None
            else check_val_loss(
                epoch, val_loss, previous=self.val_losses.get(epoch - 1), cap=self._cap
            )
        )
        if found is None or not any(map(self.contract.declares, gates_failed(found))):
            return None
        if found.abort is Abort.NUMERICAL_INSTABILITY and self.contract.declares(
            gateids.INSTABILITY
        ):
            found = replace(found, gate=gateids.INSTABILITY)
        return self._aborting(found)

    def close_epoch(self, record: EpochRecord) -> EpochEnd:
        """Take in an epoch whose artifacts are written, and return what follows it."""
        self._history.add(record, device=self.facts.device)
        rules = self.contract.convergence
        if self.contract.declares(gateids.PATIENCE) and (
            self._history.progress.is_out_of_patience(record.epoch, rules)
        ):
            return EpochEnd.EARLY_STOP
        is_at_target = (
            self._target is not None
            and to_float32(record.val_loss) <= to_float32(self._target)
            and record.epoch + 1 >= rules.min_epochs_before_early_stop
        )
        if self.contract.declares(gateids.TARGET) and is_at_target:
            return EpochEnd.TARGET
        return EpochEnd.NEXT

    def exhausted(
        self, *, epoch: int, batches: int, tokens: int, planned: int | None = None
    ) -> Violation | None:
        """Return that an epoch ran out of data, and count that as the abort of the run.

        Not so if EXHAUST is not declared, or the repetition of the data was announced.

        Args:
            epoch: The epoch.
            batches: How many it had.
            tokens: How many were seen since the begin of the run.
            planned: How many batches it should have had, by default the run's.
        """
        if not self.contract.declares(gateids.EXHAUST) or epoch >= self._cycled_from:
            return None
        planned = self.facts.planned_batches if planned is None else planned
        of_planned = "" if planned is None else f" of {planned}"
        violation = Violation(
            gate=gateids.EXHAUST,
            abort=Abort.STREAM_EXHAUSTED,
            message=f"STREAM_EXHAUSTED at epoch {epoch}: {batches}{of_planned} batches, "
            f"{tokens} tokens seen",
            epoch=epoch,
            value=float(batches),
            limit=None if planned is None else float(planned),
        )
        return self._aborting(violation)

    def cycle(self, epoch: int, tokens: int | None) -> None:
        """Note that data are repeated from an epoch on; without `tokens` that does not count."""
        if tokens is not None:
            self._cycled_from = min(self._cycled_from, epoch)

    def abort(self, violation: Violation, at: Location | None = None) -> None:
        """Count a violation as the abort of the run; a second time it makes no difference.

        Args:
            violation: Of this rank, of another one, or read from an ABORT event.
            at: Where it was read.
        """
        self._aborts[violation] = at or self._aborts.get(violation)

    def verdicts(self, end: RunEnd, logs: Sequence[StepGates] = ()) -> tuple[GateResult, ...]:
        """Return the verdicts on the declared gates, in their order, without 002 and 006.

        Args:
            end: How the run ended.
            logs: The step logs that were read, one per rank; none: those of this session count.
        """
        results = [*self._results(end, logs or (self.steps,))]
        return tuple(
            _merged(gate.id, results)
            for gate in self.contract.gates
            if gate.id not in JUDGED_ELSEWHERE
        )

    def state_dict(self) -> dict[str, Any]:
        """Return the state as JSON has it; aborts are left out, since they end the run."""
        return {
            "steps": self.steps.state_dict(),
            "epochs": self._history.state_dict(),
            "cycled_from": jsonable(self._cycled_from),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from `state`, which a session with the same contract has given."""
        self.steps.load_state_dict(state["steps"])
        self._history.load_state_dict(state["epochs"])
        self._cycled_from = read_float(state["cycled_from"])

    def _aborting(self, violation: Violation | None) -> Violation | None:
        if violation is not None:
            self.abort(violation)
        return violation

    def _results(self, end: RunEnd, logs: Sequence[StepGates]) -> Iterator[GateResult]:
        """Yield all that is known, gate by gate; several results may be of one gate."""
        for log in logs:
            yield from log.results()
        facts = self.facts
        yield from self._history.results(
            end,
            target=self._target,
            has_cap=self._cap is not None,
            planned_batches=facts.planned_batches,
            cycled_from=self._cycled_from,
        )
        yield judge_hyperparameters(
            self.contract,
            mode=facts.mode,
            used=facts.hyperparameters,
            explicit=facts.explicit,
            lr_max_seen=max(log.lr_max for log in logs),
        )
        yield judge_provenance(facts.provenance)
        if facts.gpu_util_source == "unavailable":
            yield _doubted(gateids.THROUGHPUT, "the utilization of the GPU cannot be read")
        for violation, at in self._aborts.items():
            for gate in gates_failed(violation):
                yield _failed(gate, violation.message, at)
        yield from self._told_by(end)

    def _told_by(self, end: RunEnd) -> Iterator[GateResult]:
        """Yield what the end of the run says of an abort that nothing else tells of."""
        abort = abort_named(end.stop_reason) if end.status == "ABORTED" else None
        if abort is not None and all(own.abort is not abort for own in self._aborts):
            message = f"{abort.name}: the run says that it was aborted"
            told = Violation(gate="", abort=abort, message=message)
            yield from (_failed(gate, message, None) for gate in gates_failed(told))


def _merged(gate: str, results: Sequence[GateResult]) -> GateResult:
    own = [result for result in results if result.gate == gate]
    return worst(own) if own else _doubted(gate, "there is no checker for this gate")


def _failed(gate: str, message: str, at: Location | None) -> GateResult:
    tally = Tally(gate)
    tally.fail(message, at)
    return tally.result("")


def _doubted(gate: str, reason: str) -> GateResult:
    return GateResult(gate=gate, verdict=Verdict.INDETERMINATE, reason=reason)


def _absent(epoch: int) -> Violation:
    return Violation(
        gate=gateids.METRICS,
        abort=Abort.METRIC_MISSING,
        message=f"METRIC_MISSING at epoch {epoch}: val_loss is absent",
        epoch=epoch,
        field="val_loss",
    )
