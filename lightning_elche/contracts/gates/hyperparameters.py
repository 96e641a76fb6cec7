"""The hyperparameters of a run, and where its data came from."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any

from lightning_elche.contracts.float32 import to_float32
from lightning_elche.contracts.gates import ids as gateids
from lightning_elche.contracts.gates.tally import Tally
from lightning_elche.contracts.model import Contract, Hyperparameters
from lightning_elche.contracts.verdicts import GateResult

__all__ = [
    "judge_hyperparameters",
    "judge_provenance",
    "resolve_hyperparameters",
    "resolve_target",
]

LR_TOLERANCE = 1e-6


def resolve_hyperparameters(
    contract: Contract, *, mode: str, overrides: Mapping[str, Any] | None = None
) -> tuple[Hyperparameters | None, frozenset[str]]:
    """Return the hyperparameters of a run, and the names of those that the user set.

    The target is the override, else that of the mode's row, else that of `convergence`.

    Args:
        contract: Has a row of defaults by mode.
        mode: "finetune" or "from_scratch".
        overrides: Any of `lr_max`, `warmup_steps`, `target_val_loss`.

    Returns:
        `None` and no names if the contract has no row for the mode and nothing is overridden.

    Raises:
        ValueError: If `overrides` has a name or a value that cannot be, or leaves out what the
            contract has no default for.
    """
    given = dict(overrides or {})
    _validate(given)
    row = contract.hyperparameter_defaults.get(mode)
    if row is None:
        if not given:
            return None, frozenset()
        if not {"lr_max", "warmup_steps"} <= given.keys():
            raise ValueError(
                "`overrides` must have `lr_max` and `warmup_steps`, because the contract has no "
                f"defaults for mode {mode!r}, got {sorted(given)}. Add them, or a row to "
                "`hyperparameter_defaults`."
            )
        row = Hyperparameters(regime=mode, lr_max=math.nan, warmup_steps=0)
    target = row.target_val_loss
    if target is None:
        target = contract.convergence.target_val_loss
    defaults = dataclasses.replace(row, target_val_loss=target)
    return dataclasses.replace(defaults, **given), frozenset(given)


def resolve_target(
    contract: Contract,
    *,
    mode: str | None,
    used: Hyperparameters | None,
    explicit: frozenset[str],
) -> float | None:
    """Return the largest validation loss that may ship; `None` if there is no target.

    A target that nobody has set is taken from the contract, whatever the run says of it.

    Args:
        contract: Has a row of defaults by mode, and a target for all.
        mode: Of the run, `None` if nobody knows.
        used: Hyperparameters of the run.
        explicit: Names of those that the user set.
    """
    if used is not None and "target_val_loss" in explicit:
        return used.target_val_loss
    row = contract.hyperparameter_defaults.get(mode) if mode is not None else None
    if row is not None and row.target_val_loss is not None:
        return row.target_val_loss
    return contract.convergence.target_val_loss


def judge_hyperparameters(
    contract: Contract,
    *,
    mode: str | None,
    used: Hyperparameters | None,
    explicit: frozenset[str],
    lr_max_seen: float,
) -> GateResult:
    """Judge whether the run used the defaults of its mode where nobody set others.

    Args:
        contract: Has a row of defaults by mode.
        mode: Of the run, `None` if nobody knows.
        used: Hyperparameters of the run, `None` if nobody knows.
        explicit: Names of those that the user set.
        lr_max_seen: Largest learning rate in the logs; minus infinity if they have none.
    """
    tally = Tally(gateids.HYPERPARAMETERS)
    default = None
    if mode is not None and mode in contract.hyperparameter_defaults:
        default, _ = resolve_hyperparameters(contract, mode=mode)
    if used is None:
        tally.doubt("the run does not tell its hyperparameters")
    if default is None:
        tally.doubt(f"the contract has no defaults for mode {mode}")
    if lr_max_seen == -math.inf:
        tally.doubt("no learning rate is logged")
    if used is not None and default is not None:
        for problem in _differences(used, default, explicit):
            tally.fail(problem)
    # Not `>`: a peak that is NaN or a limit that is none must not pass.
    if used is not None and not lr_max_seen <= used.lr_max * (1.0 + LR_TOLERANCE):
        tally.fail(f"lr reached {lr_max_seen:.9g} > lr_max {used.lr_max:.9g}")
    return tally.result("as in the contract, or set by the user")


def judge_provenance(provenance: Mapping[str, Any] | None) -> GateResult:
    """Judge whether a run was trained on all of its real data.

    Args:
        provenance: "synthetic", "fast_dev_run" and "overfit_batches"; `None` if nobody has told.
    """
    tally = Tally(gateids.PROVENANCE)
    for name in ("synthetic", "fast_dev_run", "overfit_batches"):
        value = (provenance or {}).get(name)
        if value is None:
            tally.doubt(f"the run does not tell {name}")
        elif value not in (False, 0):
            tally.fail(f"{name} is {value!r}")
    return tally.result("real data, not cut short")


def _differences(
    used: Hyperparameters, default: Hyperparameters, explicit: frozenset[str]
) -> list[str]:
    names = [field.name for field in dataclasses.fields(Hyperparameters)]
    return [
        f"{name} is {getattr(used, name)!r}, by default {getattr(default, name)!r}"
        for name in names
        if name == "regime" or name not in explicit
        if _single(getattr(used, name)) != _single(getattr(default, name))
    ]


def _single(value: object) -> object:
    return to_float32(value) if isinstance(value, float) else value


def _validate(given: Mapping[str, Any]) -> None:
    for name, value in given.items():
        if name not in CHECKS:
            raise ValueError(f"`overrides` may have {sorted(CHECKS)}, got {name!r}.")
        text, is_valid = CHECKS[name]
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not is_valid(value):
            raise ValueError(f"`{name}` in `overrides` must be {text}, got {value!r}.")


CHECKS: dict[str, tuple[str, Callable[[float], bool]]] = {
    "lr_max": ("a finite number > 0", lambda value: 0.0 < value < math.inf),
    "warmup_steps": ("an integer >= 0", lambda value: isinstance(value, int) and value >= 0),
    "target_val_loss": ("a finite number", math.isfinite),
}
