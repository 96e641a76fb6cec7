"""Contracts, steps and epochs in which nothing is amiss, to change what a test is about."""

from __future__ import annotations

import dataclasses
from typing import Any

from hypothesis import strategies as st

from lightning_elche.contracts.gates.steps import SIX_FIELDS
from lightning_elche.contracts.model import Contract, Gate, Hyperparameters, ThresholdCheck
from lightning_elche.contracts.records import EpochRecord, StepColumns, StepRecord

STEP_IDS = ("GATE-TRAIN-001", "GATE-TRAIN-007", "GATE-TRAIN-008", "GATE-TRAIN-EXHAUST")
ALL_IDS = (*(f"GATE-TRAIN-{number:03d}" for number in range(1, 11)), "GATE-TRAIN-EXHAUST")
FINETUNE = Hyperparameters(regime="finetune", lr_max=5e-5, warmup_steps=100, target_val_loss=2.2)
CHECK_ID = "GATE-MY-001"


def contract_of(*ids: str, check: ThresholdCheck | None = None, **changes: Any) -> Contract:
    """Return a contract with these gates, and one more if there is a `check`."""
    gates = tuple(Gate(id=gate) for gate in ids)
    if check is not None:
        gates = (*gates, Gate(id=CHECK_ID, check=check))
    return Contract(
        contract_id="C-TEST",
        version="1.0.0",
        kind="training-loop",
        family="B",
        **{
            "gates": gates,
            "required": SIX_FIELDS,
            "hyperparameter_defaults": {"finetune": FINETUNE},
            **changes,
        },
    )


def step_of(step: int = 0, /, **changes: Any) -> StepRecord:
    """Return a clean step."""
    clean = StepRecord(
        step=step,
        train_loss=2.5,
        grad_norm=0.5,
        lr=1e-5,
        tokens_per_sec=1000.0,
        gpu_util_pct=0.0,
        wall_ms=20.0,
        epoch=0,
    )
    return dataclasses.replace(clean, **changes)


def fields_of(step: int = 0, /, **changes: Any) -> dict[str, object]:
    """Return a clean step as the fields that its line has; those that are `...` are left out."""
    fields = {**dataclasses.asdict(step_of(step)), **changes}
    return {name: value for name, value in fields.items() if value is not ...}


def epoch_of(epoch: int, val_loss: float = 2.0, **changes: Any) -> EpochRecord:
    """Return an epoch in which nothing but the validation loss can be amiss."""
    clean = EpochRecord(
        epoch=epoch,
        train_loss=2.0,
        val_loss=val_loss,
        train_ppl=7.3890562,
        val_ppl=7.3890562,
        optimizer_state_sha="0" * 64,
        wall_seconds=60.0,
        tokens_seen=1000 * (epoch + 1),
        grad_norm_max=3.0,
    )
    return dataclasses.replace(clean, **changes)


def columns_of(records: list[StepRecord]) -> StepColumns:
    """Return records as columns, the last three only if all records have them."""
    columns: dict[str, Any] = {
        field.name: [getattr(record, field.name) for record in records]
        for field in dataclasses.fields(StepColumns)
    }
    for name in ("wall_ms", "epoch", "attempt"):
        if None in columns[name]:
            columns[name] = None
    return StepColumns(**columns)


# Numbers around all the bounds, where a comparison of 64-bit floats could go wrong.
EDGES = (
    0.0,
    -0.0,
    1.0,
    1.0 - 2.0**-25,
    1.0 - 2.0**-24,
    1.0 + 2.0**-24,
    1.0 + 2.0**-23,
    100.0,
    100.0 + 2.0**-18,
    100.0 + 2.0**-17,
    -(2.0**-150),
    -(2.0**-149),
    3.4028234663852886e38,
    3.4028235677973366e38,
    3.402823567797336e38,
    -3.4028235677973366e38,
    1e39,
    float("inf"),
    float("-inf"),
    float("nan"),
)
numbers = st.sampled_from(EDGES) | st.floats()
calm_numbers = st.floats(min_value=0.0, max_value=99.0)


def step_records(floats: st.SearchStrategy[float] = numbers) -> st.SearchStrategy[StepRecord]:
    """Return steps with fields of the right types and any values."""
    return st.builds(
        StepRecord,
        step=st.integers(min_value=0, max_value=2**63 - 1),
        train_loss=floats,
        grad_norm=floats,
        lr=floats,
        tokens_per_sec=floats,
        gpu_util_pct=floats,
        wall_ms=st.none() | floats,
    )
