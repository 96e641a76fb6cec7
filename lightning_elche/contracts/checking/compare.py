"""Whether two runs took the same first steps, by their folders."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from lightning_elche.contracts.evidence.contradiction import contradiction
from lightning_elche.contracts.gates import ids as gateids
from lightning_elche.contracts.gates.reproduce import NUM_STEPS, Comparison, compare_steps
from lightning_elche.contracts.runfolder.names import steps_name
from lightning_elche.contracts.runfolder.rundir import RunFolder, RunUnreadable
from lightning_elche.contracts.steplog.first import LoggedStep, iter_steps
from lightning_elche.contracts.verdicts import Finding, GateResult, Report, Severity, Verdict

__all__ = ["compare_runs"]


def compare_runs(run_a: str | Path, run_b: str | Path) -> Report:
    """Compare the first steps of two runs: GATE-TRAIN-006.

    Args:
        run_a: Folder of a run.
        run_b: Folder of a run that was started with the same seed.

    Raises:
        OSError: If one is no folder of a run, or its step log cannot be read.
    """
    folders = (RunFolder.open(Path(run_a)), RunFolder.open(Path(run_b)))
    steps_a, steps_b = (_first_steps(folder) for folder in folders)
    seed_a, seed_b = (None if one.run is None else one.run.seed for one in folders)
    comparison = compare_steps(steps_a, steps_b, seeds=(seed_a, seed_b))
    gate = replace(comparison.result, findings=_lines(comparison, steps_a, steps_b))
    same = _what_is_shared(folders, steps_a, steps_b)
    findings: tuple[Finding, ...] = ()
    if same is not None:
        gate = GateResult(gate=gate.gate, verdict=Verdict.INDETERMINATE, reason=same)
        findings = (contradiction("EV-SELF-COMPARE", same, path=_name(folders[1])),)
    return Report(
        command="compare",
        subject=f"{run_a} {run_b}",
        gates=(gate,),
        findings=findings,
        facts={"records compared": comparison.common},
    )


def _first_steps(folder: RunFolder) -> list[LoggedStep]:
    path = folder.step_logs.get(0)
    if path is None:
        raise RunUnreadable(f"{_name(folder)} is missing: it is what runs are compared by.")
    return list(iter_steps(path, limit=NUM_STEPS, name=_name(folder)))


def _name(folder: RunFolder) -> str:
    return (folder.path / steps_name(0)).as_posix()


def _lines(
    comparison: Comparison, steps_a: Sequence[LoggedStep], steps_b: Sequence[LoggedStep]
) -> tuple[Finding, ...]:
    """Return the lines of both logs at which the runs differ."""
    difference = comparison.difference
    if difference is None or comparison.result.verdict is not Verdict.FAIL:
        return comparison.result.findings
    return tuple(
        Finding(
            rule=gateids.REPRODUCIBILITY,
            severity=Severity.ERROR,
            message=f"{comparison.result.reason}: {step.text}",
            at=step.at,
        )
        for step in (steps_a[difference.index], steps_b[difference.index])
    )


def _what_is_shared(
    folders: tuple[RunFolder, RunFolder],
    steps_a: Sequence[LoggedStep],
    steps_b: Sequence[LoggedStep],
) -> str | None:
    """Return why the two runs are one and the same; `None` if they are two."""
    run_a, run_b = (folder.run for folder in folders)
    if run_a is not None and run_b is not None and run_a.run_id == run_b.run_id:
        return f"both are run {run_a.run_id}"
    clocks_a, clocks_b = ([_clock(step) for step in steps] for steps in (steps_a, steps_b))
    if clocks_a and clocks_a == clocks_b:
        return "both have the same throughput and time in every step"
    return None


def _clock(step: LoggedStep) -> tuple[float, float | None]:
    return (step.tokens_per_sec, step.wall_ms)
