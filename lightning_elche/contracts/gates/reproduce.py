"""Whether two runs took the same first hundred steps."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice, takewhile

from lightning_elche.contracts.float32 import to_float32
from lightning_elche.contracts.gates import ids as gateids
from lightning_elche.contracts.gates.tally import Tally
from lightning_elche.contracts.records import StepLike
from lightning_elche.contracts.values import shown
from lightning_elche.contracts.verdicts import GateResult

__all__ = ["Comparison", "Difference", "compare_steps"]

NUM_STEPS = 100
TOLERANCE = 1e-6
TOLERANCES = {"step": 0.0, "train_loss": TOLERANCE, "grad_norm": TOLERANCE, "lr": 0.0}


@dataclass(frozen=True, kw_only=True)
class Difference:
    """The first difference of two runs.

    Attributes:
        index: Which record of either log it is, from 0.
        step: The step of the first run.
        field: The field.
        a: Its value in the first run.
        b: Its value in the second.
    """

    index: int
    step: int
    field: str
    a: float
    b: float


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """What comparing two runs comes to.

    Attributes:
        result: The verdict on GATE-TRAIN-006.
        common: Number of records that were compared.
        difference: The first difference, `None` if there is none.
    """

    result: GateResult
    common: int
    difference: Difference | None


def compare_steps(
    a: Iterable[StepLike],
    b: Iterable[StepLike],
    *,
    seeds: tuple[int | None, int | None] = (None, None),
) -> Comparison:
    """Compare the first 100 steps of two runs.

    Steps and learning rates must be equal, losses and gradient norms within 1e-6. Clocks and
    utilizations are left out.

    Args:
        a: Steps of the first run, from its first one on; no more than 100 are asked for.
        b: Steps of the second run.
        seeds: Of the two runs: with different ones there is nothing to compare.
    """
    tally = Tally(gateids.REPRODUCIBILITY)
    common, difference = 0, None
    for one, other in zip(_first_steps(a), _first_steps(b), strict=False):
        difference = _difference(common, one, other)
        common += 1
        if difference is not None:
            break
    if seeds[0] != seeds[1]:
        tally.doubt(f"the runs have other seeds: {seeds[0]} and {seeds[1]}")
    elif difference is not None:
        tally.fail(_text(difference))
    elif common < NUM_STEPS:
        tally.doubt(f"the runs have only {common} of the first {NUM_STEPS} steps in common")
    return Comparison(result=tally.result(f"{common} steps"), common=common, difference=difference)


def _first_steps(steps: Iterable[StepLike]) -> Iterable[StepLike]:
    return takewhile(lambda one: one.step < NUM_STEPS, islice(steps, NUM_STEPS))


def _difference(index: int, one: StepLike, other: StepLike) -> Difference | None:
    for name, tolerance in TOLERANCES.items():
        a, b = to_float32(getattr(one, name)), to_float32(getattr(other, name))
        # Not `>`: what is not a number is not the same, either.
        if not abs(a - b) <= tolerance:
            return Difference(index=index, step=one.step, field=name, a=a, b=b)
    return None


def _text(difference: Difference) -> str:
    return (
        f"at step {difference.step}, {difference.field} is {shown(difference.a)} in the first run "
        f"and {shown(difference.b)} in the second"
    )
