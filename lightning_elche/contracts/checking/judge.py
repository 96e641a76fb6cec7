"""The verdict on every gate, from what the folder of a run says."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from lightning_elche.contracts.evidence.epochs import checkpoints_after_abort, epoch_contradictions
from lightning_elche.contracts.evidence.steps import (
    StepEvidence,
    log_contradictions,
    step_contradictions,
)
from lightning_elche.contracts.gates import ids as gateids
from lightning_elche.contracts.gates.artifacts import ArtifactEvidence, Digest, judge_artifacts
from lightning_elche.contracts.model import Contract
from lightning_elche.contracts.runfolder.evidence import RunEvidence
from lightning_elche.contracts.runfolder.names import RUN_FILE, events_name
from lightning_elche.contracts.runfolder.runfacts import run_end
from lightning_elche.contracts.session import GateSession, RunFacts
from lightning_elche.contracts.verdicts import (
    Abort,
    Finding,
    GateResult,
    Location,
    Severity,
    Verdict,
)

__all__ = ["Judgement", "judge_run"]

FINISHED = ("OK", "EARLY_STOP")


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """What became of a run.

    Attributes:
        gates: Verdicts on the declared gates, in their order, without GATE-TRAIN-006.
        findings: What no gate has among its findings.
    """

    gates: tuple[GateResult, ...]
    findings: tuple[Finding, ...]


def judge_run(
    evidence: RunEvidence, contract: Contract, facts: RunFacts, *, digest: Digest | None
) -> Judgement:
    """Judge a run by its files.

    Args:
        evidence: What they say.
        contract: The rules.
        facts: What the run tells of itself.
        digest: Recomputes digests of optimizer states, see `judge_artifacts`.
    """
    found = _contradictions(evidence, contract, facts)
    errors = [one for one in found if one.severity is Severity.ERROR]
    blames = {
        gateids.METRICS: [
            *_lost_steps(evidence, contract),
            *_unknown_aborts(evidence),
            *_lost_events(evidence),
        ],
        gateids.ARTIFACTS: errors,
        gateids.DIVERGENCE: list(_late_checkpoints(evidence)),
    }
    results = [*_session_results(evidence, contract, facts)]
    results.append(judge_artifacts(contract, _artifacts(evidence), digest=digest))
    by_gate = {one.gate: one for one in results}
    declared = [one.id for one in contract.gates if one.id in by_gate]
    gates = (_blamed(by_gate[gate], blames.get(gate, ())) for gate in declared)
    unheard = (one for gate, own in blames.items() if gate not in declared for one in own)
    others = (one for one in found if one.severity is not Severity.ERROR)
    return Judgement(gates=tuple(gates), findings=(*evidence.notes, *others, *unheard))


def _session_results(
    evidence: RunEvidence, contract: Contract, facts: RunFacts
) -> tuple[GateResult, ...]:
    session = GateSession(contract, facts)
    for record in evidence.records:
        session.val(record.epoch, record.val_loss)
        session.close_epoch(record)
    for event in evidence.events:
        tokens = event.facts.get("tokens")
        if event.name == "CYCLE" and event.epoch is not None and isinstance(tokens, int):
            session.cycle(event.epoch, tokens)
    for event, violation in evidence.aborts:
        if violation is not None:
            session.abort(violation, event.at)
    end = run_end(evidence.run, num_epochs=len(evidence.records))
    return session.verdicts(end, tuple(evidence.logs.values()))


def _contradictions(
    evidence: RunEvidence, contract: Contract, facts: RunFacts
) -> tuple[Finding, ...]:
    records, paths = evidence.epochs.records, evidence.epochs.metadata_paths
    steps = StepEvidence(
        totals=[log.epochs for log in evidence.logs.values()],
        is_complete=not evidence.missing_logs
        and len(evidence.logs) >= facts.world_size
        and contract.sampling_period_steps == 1,
    )
    seed = None if evidence.run is None else evidence.run.seed
    found = [*epoch_contradictions(records, seed=seed, paths=paths)]
    for log in evidence.logs.values():
        found += log_contradictions(log, path=log.path, device=facts.device)
    return (*found, *step_contradictions(records, steps, paths=paths))


def _artifacts(evidence: RunEvidence) -> ArtifactEvidence:
    run = evidence.run
    told = [] if run is None else list(run.artifact_failures)
    told += [str(one.facts.get("reason")) for one in evidence.events if one.name == "CKPT_FAILED"]
    reason = Abort.ARTIFACT_WRITE_FAILED
    is_aborted = run is not None and (run.status, run.stop_reason) == ("ABORTED", reason.name)
    aborts = (violation for _, violation in evidence.aborts if violation is not None)
    if not told and (is_aborted or any(one.abort is reason for one in aborts)):
        told.append("the run was aborted for that")
    return ArtifactEvidence(
        epochs=evidence.epochs,
        epochs_completed=None if run is None else run.epochs_completed,
        failures=tuple(dict.fromkeys(told)),
    )


def _late_checkpoints(evidence: RunEvidence) -> tuple[Finding, ...]:
    epochs = [
        event.epoch
        for event, violation in evidence.aborts
        # That one is told at the end of the run, when all checkpoints are rightly there.
        if violation is not None and violation.abort is not Abort.ARTIFACT_WRITE_FAILED
        if event.epoch is not None
    ]
    return checkpoints_after_abort(
        min(epochs, default=None), paths=evidence.epochs.checkpoint_paths
    )


def _lost_steps(evidence: RunEvidence, contract: Contract) -> Iterator[Finding]:
    """Say so if the log of a finished run has more or fewer steps than the run has counted."""
    run, log = evidence.run, evidence.logs.get(0)
    if run is None or log is None or 0 in evidence.missing_logs or run.status not in FINISHED:
        return
    if contract.sampling_period_steps == 1 and log.records != run.steps:
        message = f"{log.path} has {log.records} records, but the run counts {run.steps} steps"
        yield _error(message, Location(path=log.path))


def _lost_events(evidence: RunEvidence) -> Iterator[Finding]:
    """Say so if an event log is cut off, or lacks the end that the run's record tells of."""
    for at in evidence.torn_events:
        yield _error("torn last line: events may be lost", at)
    run = evidence.run
    if run is None or run.status not in (*FINISHED, "ABORTED"):
        return
    # Of a run that was aborted other ranks may have been killed before they could write it.
    ranks = run.logged_ranks if run.status in FINISHED else run.logged_ranks[:1]
    ended = {
        one.rank for one in evidence.events if one.name == "RUN_END" and one.attempt == run.attempt
    }
    for rank in ranks:
        if rank not in ended:
            name = events_name(rank)
            message = f"{name} has no RUN_END of attempt {run.attempt}: events were lost"
            yield _error(message, Location(path=name))


def _unknown_aborts(evidence: RunEvidence) -> Iterator[Finding]:
    for event, violation in evidence.aborts:
        if violation is None:
            yield _error("an ABORT event names no abort that is known", event.at)
    run = evidence.run
    if run is not None and run.status == "ABORTED" and run.stop_reason not in Abort.__members__:
        message = f"the run was aborted for no known reason: {run.stop_reason!r}"
        yield _error(message, Location(path=RUN_FILE, pointer="/stop_reason"))


def _error(message: str, at: Location) -> Finding:
    return Finding(rule=gateids.METRICS, severity=Severity.ERROR, message=message, at=at)


def _blamed(result: GateResult, errors: Sequence[Finding]) -> GateResult:
    """Return a result that fails because of errors, if there are any."""
    if not errors:
        return result
    is_first = result.verdict is not Verdict.FAIL
    return replace(
        result,
        verdict=Verdict.FAIL,
        reason=f"{errors[0].rule}: {errors[0].message}" if is_first else result.reason,
        findings=(*result.findings, *errors),
    )
