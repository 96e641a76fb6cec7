"""The words of contract files: rules of their findings, known keys, statuses and kinds."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from lightning_elche.contracts.verdicts import Severity

__all__ = [
    "BLOCK_KEYS",
    "FALSIFIED_KINDS",
    "GATE_KEYS",
    "KINDS",
    "SEVERITIES",
    "STATUSES",
    "TOP_LEVEL_KEYS",
    "TRAINING_BLOCKS",
    "TRAINING_GATES",
    "VERDICTS",
]

SEVERITIES: Mapping[str, Severity] = MappingProxyType(
    {
        "CT-YAML": Severity.ERROR,  # no plain YAML
        "CT-SCHEMA": Severity.ERROR,  # a key is missing, unknown, or of another type or value
        "CT-NONFINITE": Severity.ERROR,  # a number is NaN, infinite or too large
        "CT-TEMPLATE": Severity.ERROR,  # a path template is none
        "CT-DUPLICATE": Severity.ERROR,  # two gates have one id
        "CT-EXPIRED": Severity.ERROR,  # the last day of a `suppress` is over
        "CT-NEARMISS": Severity.ERROR,  # an unknown key looks like a known one
        "CT-STATUS": Severity.WARNING,  # unknown `status`
        "CT-KIND": Severity.WARNING,  # unknown `metadata.kind`
        "CT-TOPKIND": Severity.WARNING,  # `kind` at top level is ignored
        "CT-VERDICT": Severity.WARNING,  # unknown `verdict`
        "CT-GATEKEY": Severity.WARNING,  # unknown key of a gate
        "CT-GATEID": Severity.WARNING,  # nothing here checks a gate of this id
        "CT-VERSION": Severity.WARNING,  # `version` is not `metadata.version`
        "CT-NODIVERGENCE": Severity.WARNING,  # a training loop without GATE-TRAIN-005
        "CT-NOGATES": Severity.NOTE,  # valid, but there is nothing to run
        "CT-CLAIM": Severity.NOTE,  # a verdict or evidence that the file claims is not believed
    }
)

TRAINING_BLOCKS = (
    "per_step_metrics",
    "per_epoch_artifacts",
    "convergence",
    "non_divergence",
    "hyperparameter_defaults",
)
# The gates that the package can judge, and the blocks without which it cannot.
TRAINING_GATES: Mapping[str, str | None] = MappingProxyType(
    {
        "GATE-TRAIN-001": "per_step_metrics",
        "GATE-TRAIN-002": "per_epoch_artifacts",
        "GATE-TRAIN-003": None,
        "GATE-TRAIN-004": "convergence",
        "GATE-TRAIN-005": None,
        "GATE-TRAIN-006": None,
        "GATE-TRAIN-007": None,
        "GATE-TRAIN-008": None,
        "GATE-TRAIN-009": "hyperparameter_defaults",
        "GATE-TRAIN-010": None,
        "GATE-TRAIN-EXHAUST": None,
    }
)

TOP_LEVEL_KEYS = frozenset(
    {
        *("dialect", "contract_id", "version", "status", "metadata", "summary", "description"),
        *("motivation", "title", "name", "kind", "scope", "references", "changelog"),
        *TRAINING_BLOCKS,
        *("invariants", "gates", "suppress", "failure_modes"),
        *("equations", "proof_obligations", "falsification_tests", "falsification"),
        *("kani_harnesses", "qa_gate", "enforcement", "verification_summary"),
    }
)
GATE_KEYS = frozenset(
    {
        *("id", "name", "rule", "description", "motivation", "notes", "severity", "status"),
        *("evidence_required", "evidence_discharged_by", "verdict", "binds_to", "ship_blocking"),
        *("falsification_id", "falsifier", "derived_metric", "check"),
        *("condition", "consequence_if_violated", "blocks_ac"),
    }
)
# Where a key that nothing reads would leave a default in force.
BLOCK_KEYS: Mapping[tuple[str, ...], frozenset[str]] = MappingProxyType(
    {
        ("per_step_metrics",): frozenset({"sampling_period_steps", "required"}),
        ("per_epoch_artifacts",): frozenset({"checkpoint", "metadata_json"}),
        ("per_epoch_artifacts", "checkpoint"): frozenset({"format", "path_template"}),
        ("per_epoch_artifacts", "metadata_json"): frozenset({"path_template", "required_fields"}),
        ("convergence",): frozenset(
            {
                *("target_val_loss", "patience_epochs", "min_epochs_before_early_stop"),
                *("early_stop_on_patience_exhausted", "require_epoch_over_epoch_improvement"),
            }
        ),
        ("hyperparameter_defaults",): frozenset({"finetune", "from_scratch"}),
        ("hyperparameter_defaults", "finetune"): frozenset(
            {"regime", "lr_max", "warmup_steps", "target_val_loss", "rationale"}
        ),
        ("hyperparameter_defaults", "from_scratch"): frozenset(
            {"regime", "lr_max", "warmup_steps", "target_val_loss", "rationale"}
        ),
    }
)

# Compared in lower case.
STATUSES = frozenset(
    {
        *("draft", "proposed", "pending", "experimental", "accepted", "active", "stable"),
        *("partial", "enforced", "verified", "deprecated", "superseded", "retired", "rejected"),
    }
)
KINDS = frozenset(
    {
        *("kernel", "training-loop", "pipeline", "library", "registry", "schema", "pattern"),
        *("reference", "model-family", "cli", "format", "process", "architecture"),
    }
)
# Kinds whose gates are proved by a test suite instead of by a run.
FALSIFIED_KINDS = frozenset({"library"})
VERDICTS = frozenset(
    {"pass", "fail", "pending", "partial", "indeterminate", "blocked", "unknown", "skip"}
)
