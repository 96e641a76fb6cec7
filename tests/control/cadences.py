"""Controllers of the cadence that have seen a window or more."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from lightning_elche.control.cadence import CadenceConfig, ElChe

__all__ = ["SPEEDS", "STEP_MS", "calibrated", "report"]

STEP_MS = st.floats(min_value=0.1, max_value=10_000.0)
SPEEDS = st.lists(STEP_MS, min_size=2, max_size=9)


def calibrated(*ms: float, **options: Any) -> ElChe:
    """Return a controller, target 10 %, that has seen one window of 10 steps on each rank."""
    elche = ElChe(len(ms), CadenceConfig(**{"overhead_target": 0.10, **options}))
    elche.report(compute_ms=[10.0 * value for value in ms], steps=[10] * len(ms), transfer_ms=0.0)
    return elche


def report(elche: ElChe, *ms: float, transfer_ms: float = 0.0, hold: bool = False) -> None:
    """Report one more window of 10 steps on each rank."""
    compute_ms = [10.0 * value for value in ms]
    elche.report(compute_ms=compute_ms, steps=[10] * len(ms), transfer_ms=transfer_ms, hold=hold)
