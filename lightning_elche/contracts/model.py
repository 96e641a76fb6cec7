"""A contract as data: what a YAML file means once it is read."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from lightning_elche.contracts.template import PathTemplate
from lightning_elche.contracts.verdicts import Finding, Location

__all__ = [
    "Contract",
    "Convergence",
    "FieldSpec",
    "Gate",
    "Hyperparameters",
    "Suppression",
    "ThresholdCheck",
]


@dataclass(frozen=True, kw_only=True)
class FieldSpec:
    """A field that every record must have.

    Attributes:
        name: Its key.
        type: "u64" or "f32".
    """

    name: str
    type: str


@dataclass(frozen=True, kw_only=True)
class Convergence:
    """When a run has converged, and when it is given up.

    Attributes:
        target_val_loss: The run may ship at or below it; `None` where no target is set here.
        patience_epochs: So many epochs without a new best are tolerated: the next one stops.
        min_epochs_before_early_stop: No stop before so many epochs.
        early_stop_on_patience_exhausted: Whether lost patience stops the run.
    """

    target_val_loss: float | None = None
    patience_epochs: int = 2
    min_epochs_before_early_stop: int = 3
    early_stop_on_patience_exhausted: bool = True


@dataclass(frozen=True, kw_only=True)
class Hyperparameters:
    """A row of `hyperparameter_defaults`.

    Attributes:
        regime: "finetune" or "from_scratch".
        lr_max: Largest learning rate.
        warmup_steps: Steps until it is reached.
        target_val_loss: The run may ship at or below it.
    """

    regime: str
    lr_max: float
    warmup_steps: int
    target_val_loss: float | None = None


@dataclass(frozen=True, kw_only=True)
class ThresholdCheck:
    """A gate of the user's own: a statistic of a metric within bounds.

    Attributes:
        metric: A field of the step log, or with `epochs` of the epoch metadata.
        stat: "min", "max", "mean", "median", "p95" or "last".
        steps: Half-open range of steps, `None` for all.
        epochs: Half-open range of epochs; the metric is then one of the epoch metadata.
        min: Smallest value that passes.
        max: Largest value that passes.
    """

    metric: str
    stat: str
    steps: tuple[int, int] | None = None
    epochs: tuple[int, int] | None = None
    min: float | None = None
    max: float | None = None


@dataclass(frozen=True, kw_only=True)
class Gate:
    """A rule that a run must keep.

    Attributes:
        id: Such as "GATE-TRAIN-005".
        rule: What it says.
        binds_to: The invariant behind it.
        ship_blocking: Whether a run that breaks it must not ship.
        check: The threshold, for a gate of the user's own.
        at: Where it stands in the file.
    """

    id: str
    rule: str = ""
    binds_to: str | None = None
    ship_blocking: bool = False
    check: ThresholdCheck | None = None
    at: Location | None = None


@dataclass(frozen=True, kw_only=True)
class Suppression:
    """A warning that is not to be shown.

    Attributes:
        rule: Id of the warning, such as "EV-UTIL-NOISE".
        until: Last day, ISO 8601.
        reason: Why.
    """

    rule: str
    until: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class Contract:
    """The rules of a healthy run; `Contract.load(path)` or `Contract.default()`.

    Attributes:
        contract_id: Its id, such as "C-GATE-TRAIN".
        version: `metadata.version`.
        kind: `metadata.kind`.
        family: "A", "B", "B'", "C" or "D": how its file is built, see the docs.
        gates: The declared gates, in the order of the file.
        required: Fields that every step record must have.
        sampling_period_steps: Every so many steps there must be a record.
        checkpoint_template: Where checkpoints lie; `None` if the contract does not say.
        metadata_template: Where the metadata of epochs lie.
        metadata_fields: Required fields of these.
        convergence: When a run has converged.
        hyperparameter_defaults: Defaults by mode.
        knows_from_scratch: Whether the contract mentions training from scratch; if not, the limit
            of the first epoch is that of finetuning.
        suppressions: Warnings not to be shown.
        findings: What `elche contract validate` has to say of it; no errors.
        text: The file, byte by byte.
        path: As given; `None` for the default contract.
    """

    contract_id: str
    version: str
    kind: str
    family: str
    gates: tuple[Gate, ...] = ()
    required: tuple[FieldSpec, ...] = ()
    sampling_period_steps: int = 1
    checkpoint_template: PathTemplate | None = None
    metadata_template: PathTemplate | None = None
    metadata_fields: tuple[str, ...] = ()
    convergence: Convergence = Convergence()
    hyperparameter_defaults: Mapping[str, Hyperparameters] = field(default_factory=dict)
    knows_from_scratch: bool = False
    suppressions: tuple[Suppression, ...] = ()
    findings: tuple[Finding, ...] = ()
    text: bytes = b""
    path: str | None = None

    @classmethod
    def load(cls, path: str | Path) -> Contract:
        """Read a contract.

        Raises:
            ContractError: If it is not valid; carries the findings.
            OSError: If it cannot be read.
        """
        from lightning_elche.contracts.grammar.loader import load_contract

        return load_contract(path)

    @classmethod
    def default(cls) -> Contract:
        """Return the contract that is used where none is named; `elche contract new` prints it."""
        from lightning_elche.contracts.grammar.loader import default_contract

        return default_contract()

    def declares(self, gate: str) -> bool:
        """Return whether the contract has a gate of this id."""
        return any(own.id == gate for own in self.gates)

    @property
    def sha256(self) -> str:
        """Digest of the file."""
        return hashlib.sha256(self.text).hexdigest()
