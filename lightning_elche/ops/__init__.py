"""Tensor operations within one process; what is public is for gradients of several tasks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lightning_elche.lazy import lazy_names

if TYPE_CHECKING:
    from lightning_elche.ops.flat_vector import FlatSpec, flatten, unflatten
    from lightning_elche.ops.gram import GramBuffer
    from lightning_elche.ops.order import step_generator
    from lightning_elche.ops.projection import (
        PCGradResult,
        conflict_rate,
        count_conflicts,
        pcgrad,
        pcgrad_weights,
    )
    from lightning_elche.ops.weighted import weighted_sum

__all__ = [
    "FlatSpec",
    "GramBuffer",
    "PCGradResult",
    "conflict_rate",
    "count_conflicts",
    "flatten",
    "pcgrad",
    "pcgrad_weights",
    "step_generator",
    "unflatten",
    "weighted_sum",
]

_MODULES = {
    "FlatSpec": "flat_vector",
    "GramBuffer": "gram",
    "PCGradResult": "projection",
    "conflict_rate": "projection",
    "count_conflicts": "projection",
    "flatten": "flat_vector",
    "pcgrad": "projection",
    "pcgrad_weights": "projection",
    "step_generator": "order",
    "unflatten": "flat_vector",
    "weighted_sum": "weighted",
}

__getattr__, __dir__ = lazy_names(__name__, _MODULES)
