"""The contract that a run is judged by, and whether it is the one that it was trained under."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path

from lightning_elche.contracts.evidence.contradiction import contradiction
from lightning_elche.contracts.grammar.loader import load_contract
from lightning_elche.contracts.model import Contract
from lightning_elche.contracts.runfolder.names import CONTRACT_COPY, RUN_FILE
from lightning_elche.contracts.runfolder.rundir import RunFolder, RunUnreadable
from lightning_elche.contracts.steplog.file import open_regular
from lightning_elche.contracts.verdicts import Finding, Severity

__all__ = ["ChosenContract", "choose_contract"]


@dataclass(frozen=True, kw_only=True)
class ChosenContract:
    """A contract, and where it is from.

    Attributes:
        contract: The contract.
        is_own_copy: Whether it was found in the folder of the run.
        findings: That it is not the one that the run was trained under, if so.
    """

    contract: Contract
    is_own_copy: bool
    findings: tuple[Finding, ...]


def choose_contract(folder: RunFolder, given: Contract | None) -> ChosenContract:
    """Return the contract that a run is judged by: the given one, else the copy in its folder.

    Raises:
        RunUnreadable: If there is neither, or the copy cannot be read.
        ContractError: If the copy is no valid contract.
    """
    told = None if folder.run is None else folder.run.contract.get("sha256")
    if given is None:
        contract = _load(_copy(folder))
        # A copy that was changed after the run has begun is a forgery, not another opinion.
        severity, message = Severity.ERROR, f"{CONTRACT_COPY} is not the contract in {RUN_FILE}"
    else:
        contract = given
        if told is None and folder.contract is not None:
            told = _sha256(folder.contract)
        severity, message = Severity.WARNING, f"{given.path} is not the contract of the run"
    found = contradiction("EV-CONTRACT-DRIFT", message, path=CONTRACT_COPY)
    is_other = told is not None and told != contract.sha256
    return ChosenContract(
        contract=contract,
        is_own_copy=given is None,
        findings=(replace(found, severity=severity),) if is_other else (),
    )


def _copy(folder: RunFolder) -> Path:
    if folder.contract is None:
        raise RunUnreadable(f"{folder.path} has no {CONTRACT_COPY}: name one with `--contract`.")
    return folder.contract


def _load(path: Path) -> Contract:
    try:
        return load_contract(path)
    except OSError as err:
        raise RunUnreadable(str(err)) from err


def _sha256(path: Path) -> str:
    with open_regular(path) as file:
        return hashlib.sha256(file.read()).hexdigest()
