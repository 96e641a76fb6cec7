"""`elche contract check` and `compare`: runs judged by their files."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from lightning_elche.cli.contract_files import invalid
from lightning_elche.cli.contract_output import Outcome
from lightning_elche.contracts.checking.check import check_run, compare_runs, exit_code
from lightning_elche.contracts.grammar.loader import load_contract
from lightning_elche.contracts.reports.edits import move_places, raise_warnings
from lightning_elche.contracts.rules.catalog import expand_gates
from lightning_elche.contracts.verdicts import Report
from lightning_elche.exceptions import ContractError

__all__ = ["check", "compare"]


def check(options: argparse.Namespace) -> Outcome:
    """Return a verdict per gate.

    Raises:
        OSError: If the run or the contract cannot be read.
    """
    try:
        report = _checked(options)
    except ContractError as err:
        return invalid("check", options.run_dir, err)
    return _judged(move_places(report, lambda path: _below(options.run_dir, path)), options)


def compare(options: argparse.Namespace) -> Outcome:
    """Return the verdict on two runs that should be equal.

    Raises:
        OSError: If a run cannot be read.
    """
    return _judged(compare_runs(Path(options.run_a), Path(options.run_b)), options)


def _checked(options: argparse.Namespace) -> Report:
    return check_run(
        Path(options.run_dir),
        contract=None if options.contract is None else load_contract(options.contract),
        is_live=options.live,
        digest=None if options.no_deep else _digest,
        regime=options.regime,
        vocab_size=options.vocab_size,
        device=options.device,
        gates=expand_gates(options.gate) if options.gate else None,
    )


def _digest(checkpoint: Path, algorithm: str) -> str | None:
    # Torch takes seconds to import, and nothing else here needs it.
    from lightning_elche.ops.state_digest import recompute_optimizer_state_sha

    return recompute_optimizer_state_sha(checkpoint, algorithm)


def _judged(report: Report, options: argparse.Namespace) -> Outcome:
    report = raise_warnings(report) if options.strict else report
    code = exit_code(
        report, allows_indeterminate=options.allow_indeterminate, is_strict=options.strict
    )
    return Outcome(result=report, exit_code=code)


def _below(run_dir: str, path: str) -> str:
    """Return a path in the folder of the run, relative to the working directory if below it."""
    joined = os.path.join(run_dir, path)
    relative = os.path.relpath(joined)
    return joined if relative.startswith(os.pardir) else relative
