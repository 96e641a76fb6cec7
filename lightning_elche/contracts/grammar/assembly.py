"""From the values of a valid contract file to a `Contract`."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from lightning_elche.contracts.grammar.families import (
    family_of,
    gate_entries,
    is_training,
    mapping_at,
)
from lightning_elche.contracts.grammar.yamltree import Document
from lightning_elche.contracts.model import (
    Contract,
    Convergence,
    FieldSpec,
    Gate,
    Hyperparameters,
    Suppression,
    ThresholdCheck,
)
from lightning_elche.contracts.template import PathTemplate

__all__ = ["assemble", "suppressions_of"]

DEFAULT_KIND = "kernel"
FROM_SCRATCH = "from_scratch"
MODES = frozenset({"finetune", FROM_SCRATCH})
CAPPED = "GATE-TRAIN-005"  # the gate whose limit for the first epoch depends on the mode
CHECKPOINT = ("per_epoch_artifacts", "checkpoint")
METADATA = ("per_epoch_artifacts", "metadata_json")

Data = Mapping[str, Any]


def assemble(document: Document, *, text: bytes, default: Callable[[], Contract]) -> Contract:
    """Return the contract that a valid file states.

    Args:
        document: The file.
        text: Its bytes.
        default: Where fields come from that a training contract leaves out.
    """
    data = document.value
    assert isinstance(data, dict)
    metadata = data["metadata"]
    contract = Contract(
        contract_id=data.get("contract_id", ""),
        version=metadata["version"],
        kind=metadata.get("kind", DEFAULT_KIND),
        family=family_of(data),
        gates=tuple(_gate(gate, i, document) for i, gate in gate_entries(data)),
        suppressions=suppressions_of(data),
        text=text,
    )
    return _with_training(contract, data, default) if is_training(data) else contract


def suppressions_of(data: object) -> tuple[Suppression, ...]:
    """Return the suppressions of a contract, without those that are not complete."""
    entries = data.get("suppress") if isinstance(data, dict) else None
    names = ("rule", "until", "reason")
    return tuple(
        Suppression(rule=entry["rule"], until=entry["until"], reason=entry["reason"])
        for entry in (entries if isinstance(entries, list) else ())
        if isinstance(entry, dict) and all(isinstance(entry.get(name), str) for name in names)
    )


def _gate(gate: Data, index: int, document: Document) -> Gate:
    binds_to, check = gate.get("binds_to"), gate.get("check")
    return Gate(
        id=gate["id"],
        rule=gate["rule"] if isinstance(gate.get("rule"), str) else "",
        binds_to=binds_to if isinstance(binds_to, str) else None,
        ship_blocking=gate.get("ship_blocking", False),
        check=_check(check) if isinstance(check, dict) and "metric" in check else None,
        at=document.locate(("gates", index)),
    )


def _check(check: Data) -> ThresholdCheck:
    return ThresholdCheck(
        metric=check["metric"],
        stat=check["stat"],
        steps=_window(check.get("steps")),
        epochs=_window(check.get("epochs")),
        min=check.get("min"),
        max=check.get("max"),
    )


def _window(ends: list[int] | None) -> tuple[int, int] | None:
    return None if ends is None else (ends[0], ends[1])


def _with_training(contract: Contract, data: Data, default: Callable[[], Contract]) -> Contract:
    """Add what the blocks of a training loop say."""
    steps = mapping_at(data, "per_step_metrics")
    required = tuple(
        FieldSpec(name=field["name"], type=field["type"]) for field in steps.get("required", ())
    )
    fields = tuple(mapping_at(data, *METADATA).get("required_fields", ()))
    return dataclasses.replace(
        contract,
        required=required or default().required,
        sampling_period_steps=steps.get("sampling_period_steps", 1),
        checkpoint_template=_template(data, *CHECKPOINT),
        metadata_template=_template(data, *METADATA),
        metadata_fields=fields or default().metadata_fields,
        convergence=Convergence(**_fields(mapping_at(data, "convergence"), Convergence)),
        hyperparameter_defaults={
            mode: Hyperparameters(**_fields(row, Hyperparameters))
            for mode, row in mapping_at(data, "hyperparameter_defaults").items()
            if mode in MODES
        },
        knows_from_scratch=_knows_from_scratch(data),
    )


def _template(data: Data, *keys: str) -> PathTemplate | None:
    text = mapping_at(data, *keys).get("path_template")
    return None if text is None else PathTemplate.parse(text)


def _fields(block: Data, kind: type[Convergence | Hyperparameters]) -> dict[str, Any]:
    """Return what `block` says of the fields of a dataclass."""
    names = [field.name for field in dataclasses.fields(kind)]
    return {name: block[name] for name in names if name in block}


def _knows_from_scratch(data: Data) -> bool:
    """Return whether a row, the cap or the text of the rule mentions training from scratch."""
    rule = mapping_at(data, "non_divergence").get("rule")
    texts = [rule, *(gate.get("rule") for _, gate in gate_entries(data) if gate["id"] == CAPPED)]
    return (
        FROM_SCRATCH in mapping_at(data, "hyperparameter_defaults")
        or FROM_SCRATCH in mapping_at(data, "non_divergence", "epoch_zero_cap")
        or any(isinstance(text, str) and FROM_SCRATCH in text.lower() for text in texts)
    )
