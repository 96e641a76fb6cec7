"""The numbers of a registry, for a monitoring system."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from lightning_elche.coordination.monitoring.exposition import Samples

__all__ = ["samples_of_registry"]


def samples_of_registry(state: Mapping[str, Any]) -> Samples:
    """Return the numbers in `Registry.state()`."""
    held = Counter(lease["kind"] for lease in state["leases"])
    return {
        "leases": {(kind,): float(held[kind]) for kind in sorted({*state["limits"], *held})},
        "admissions_total": {(code,): count for code, count in state["answers"].items()},
        "breaker_state": {(key,): one["state"] for key, one in state["breakers"].items()},
        "breaker_opens_total": {(key,): count for key, count in state["opened"].items()},
    }
