"""A run judged afterwards, from its files alone."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from dataclasses import replace
from pathlib import Path

from lightning_elche.contracts.checking.compare import compare_runs
from lightning_elche.contracts.checking.exitcode import exit_code
from lightning_elche.contracts.checking.judge import judge_run
from lightning_elche.contracts.gates import ids as gateids
from lightning_elche.contracts.model import Contract
from lightning_elche.contracts.runfolder.evidence import RunEvidence, gather_evidence
from lightning_elche.contracts.runfolder.runcontract import ChosenContract, choose_contract
from lightning_elche.contracts.runfolder.rundir import RunFolder
from lightning_elche.contracts.runfolder.runfacts import run_facts
from lightning_elche.contracts.values import shown
from lightning_elche.contracts.verdicts import Finding, GateResult, Report, Severity, Verdict

__all__ = ["check_run", "compare_runs", "exit_code"]

ONE_RUN = "it takes two runs: `elche contract compare RUN_A RUN_B`"


def check_run(
    run_dir: str | Path,
    *,
    contract: Contract | None = None,
    is_live: bool = False,
    digest: Callable[[Path, str], str | None] | None = None,
    regime: str | None = None,
    vocab_size: int | None = None,
    device: str | None = None,
    gates: Collection[str] | None = None,
) -> Report:
    """Judge a run by a contract, gate by gate.

    Args:
        run_dir: Folder of the run.
        contract: The rules; by default the copy in the folder, and the report says so.
        is_live: The run may be going on.
        digest: Given a checkpoint and the name of an algorithm, returns the digest of the
            optimizer states in it, `None` if it cannot. Without it GATE-TRAIN-002 cannot pass.
        regime: "finetune" or "from_scratch", for a run without a run.json.
        vocab_size: Number of tokens, for such a run.
        device: Such as "cpu" or "cuda", for such a run.
        gates: Ids of the gates to judge, by default all.

    Raises:
        ContractError: If the copy in the folder is no valid contract.
        OSError: If the folder, or a file in it, is missing or cannot be read.
        ValueError: If the run tells itself what is given here.
    """
    folder = RunFolder.open(Path(run_dir))
    chosen = choose_contract(folder, contract)
    facts = run_facts(folder.run, regime=regime, vocab_size=vocab_size, device=device)
    evidence = gather_evidence(folder, chosen.contract, is_live=is_live)
    judgement = judge_run(evidence, chosen.contract, facts, digest=digest)
    results = (*judgement.gates, *_unjudged(chosen.contract, gates))
    report = Report(
        command="check",
        subject=str(run_dir),
        gates=_selected(results, chosen.contract, gates),
        # Who asks for one gate does not ask what is wrong besides.
        findings=(*chosen.findings, *(judgement.findings if gates is None else ())),
        facts=_facts(evidence, chosen),
    )
    return _without_suppressed(report, chosen.contract)


def _unjudged(contract: Contract, gates: Collection[str] | None) -> Iterable[GateResult]:
    """Yield the gates that one run alone cannot tell of, and those that nobody has declared."""
    if gates is not None and gateids.REPRODUCIBILITY in gates:
        yield GateResult(
            gate=gateids.REPRODUCIBILITY, verdict=Verdict.INDETERMINATE, reason=ONE_RUN
        )
    for gate in sorted(gateids.BUILT_IN if gates is None else gates):
        if not contract.declares(gate):
            yield GateResult(gate=gate, verdict=Verdict.NOT_DECLARED, reason="not in the contract")


def _selected(
    results: Iterable[GateResult], contract: Contract, gates: Collection[str] | None
) -> tuple[GateResult, ...]:
    """Return the results in the order of the contract, what is not declared last."""
    order = {gate.id: index for index, gate in enumerate(contract.gates)}
    by_gate = {one.gate: one for one in results if gates is None or one.gate in gates}
    return tuple(sorted(by_gate.values(), key=lambda one: order.get(one.gate, len(order))))


def _without_suppressed(report: Report, contract: Contract) -> Report:
    silenced = {one.rule for one in contract.suppressions}

    def kept(findings: tuple[Finding, ...]) -> tuple[Finding, ...]:
        return tuple(
            one
            for one in findings
            if one.severity is not Severity.WARNING or one.rule not in silenced
        )

    gates = tuple(replace(one, findings=kept(one.findings)) for one in report.gates)
    found = sorted(kept(report.findings), key=lambda one: one.sort_key)
    return replace(report, gates=gates, findings=tuple(found))


def _facts(evidence: RunEvidence, chosen: ChosenContract) -> dict[str, object]:
    contract = chosen.contract
    source = "the run's own copy" if chosen.is_own_copy else contract.path or "built in"
    facts: dict[str, object] = {
        "contract": f"{contract.contract_id} {contract.version}, {source}",
        "contract_sha256": contract.sha256,
        "steps": sum(log.records for log in evidence.logs.values()),
        "epochs": len(evidence.records),
    }
    if contract.declares(gateids.REPRODUCIBILITY):
        facts["not_judged"] = f"{gateids.REPRODUCIBILITY}: {ONE_RUN}"
    if evidence.run is not None:
        facts["run_id"] = evidence.run.run_id
        facts["attempt"] = evidence.run.attempt
        facts["status"] = evidence.run.status
        facts["stop_reason"] = evidence.run.stop_reason
    if evidence.records:
        last = evidence.records[-1]
        best = min(evidence.records, key=lambda one: one.val_loss)
        facts["last_val_loss"] = f"{shown(last.val_loss)} at epoch {last.epoch}"
        facts["best_val_loss"] = f"{shown(best.val_loss)} at epoch {best.epoch}"
    return facts
