"""Tests of hyperparameters and provenance."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest

from lightning_elche.contracts.gates.hyperparameters import (
    judge_hyperparameters,
    judge_provenance,
    resolve_hyperparameters,
    resolve_target,
)
from lightning_elche.contracts.model import Convergence, Hyperparameters
from lightning_elche.contracts.verdicts import Verdict
from tests.contracts.sample_runs import FINETUNE, contract_of

P, F, U = Verdict.PASS, Verdict.FAIL, Verdict.INDETERMINATE
WITHOUT_TARGET = dataclasses.replace(FINETUNE, target_val_loss=None)
CONVERGENCE = Convergence(target_val_loss=3.3)
REAL = {"synthetic": False, "fast_dev_run": False, "overfit_batches": 0.0}


def _resolve(**overrides: Any) -> tuple[Hyperparameters | None, frozenset[str]]:
    return resolve_hyperparameters(contract_of(), mode="finetune", overrides=overrides)


def _judge(
    used: Hyperparameters | None = FINETUNE,
    *explicit: str,
    lr: float = 5e-5,
    mode: str | None = "finetune",
) -> Verdict:
    return judge_hyperparameters(
        contract_of(), mode=mode, used=used, explicit=frozenset(explicit), lr_max_seen=lr
    ).verdict


def test_defaults_are_those_of_the_mode() -> None:
    """Without overrides the row of the mode holds, and nothing is explicit."""
    assert _resolve() == (FINETUNE, frozenset())
    assert resolve_hyperparameters(contract_of(), mode="finetune") == (FINETUNE, frozenset())


def test_overrides_are_used_and_recorded() -> None:
    """Overrides replace defaults, and their names are kept."""
    used, explicit = _resolve(lr_max=1e-3, warmup_steps=0)
    assert used == dataclasses.replace(FINETUNE, lr_max=1e-3, warmup_steps=0)
    assert explicit == {"lr_max", "warmup_steps"}


@pytest.mark.parametrize(
    ("row", "overrides", "expected"),
    [
        (FINETUNE, {"target_val_loss": 1.5}, 1.5),
        (FINETUNE, {}, 2.2),
        (WITHOUT_TARGET, {}, 3.3),
    ],
)
def test_target_is_the_override_then_that_of_the_mode_then_of_all(
    row: Hyperparameters, overrides: dict[str, float], expected: float
) -> None:
    """The target is looked for in three places, in this order."""
    contract = contract_of(convergence=CONVERGENCE, hyperparameter_defaults={"finetune": row})
    used, explicit = resolve_hyperparameters(contract, mode="finetune", overrides=overrides)
    assert used is not None
    assert used.target_val_loss == expected
    assert resolve_target(contract, mode="finetune", used=used, explicit=explicit) == expected


def test_target_is_none_if_nobody_sets_one() -> None:
    """No target is guessed."""
    contract = contract_of(hyperparameter_defaults={})
    assert resolve_target(contract, mode="finetune", used=None, explicit=frozenset()) is None


def test_target_that_nobody_set_is_that_of_the_contract() -> None:
    """A run cannot lower its own bar by telling another target."""
    told = dataclasses.replace(FINETUNE, target_val_loss=99.0)
    contract = contract_of()
    assert resolve_target(contract, mode="finetune", used=told, explicit=frozenset()) == 2.2


def test_target_is_that_of_all_where_the_mode_is_not_known() -> None:
    """Without a mode, or a row for it, the target of `convergence` holds."""
    contract = contract_of(convergence=CONVERGENCE)
    for mode in (None, "from_scratch"):
        assert resolve_target(contract, mode=mode, used=None, explicit=frozenset()) == 3.3


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            {"batch_size": 3},
            r"`overrides` may have \['lr_max', 'target_val_loss', 'warmup_steps'\]",
        ),
        ({"lr_max": 0.0}, "`lr_max` in `overrides` must be a finite number > 0, got 0.0"),
        ({"lr_max": math.inf}, "must be a finite number > 0, got inf"),
        ({"lr_max": True}, "must be a finite number > 0, got True"),
        ({"lr_max": "1e-3"}, "must be a finite number > 0, got '1e-3'"),
        ({"warmup_steps": -1}, "`warmup_steps` in `overrides` must be an integer >= 0, got -1"),
        ({"warmup_steps": 1.0}, "must be an integer >= 0, got 1.0"),
        ({"target_val_loss": math.nan}, "must be a finite number, got nan"),
    ],
)
def test_override_that_cannot_be_is_refused(overrides: dict[str, Any], message: str) -> None:
    """Unknown names and values out of range are mistakes of the caller."""
    with pytest.raises(ValueError, match=message):
        _resolve(**overrides)


def test_mode_without_defaults_needs_all_of_them() -> None:
    """Without a row for the mode the user sets everything, or nothing."""
    contract = contract_of(convergence=CONVERGENCE)
    given = {"lr_max": 1e-3, "warmup_steps": 5}
    assert resolve_hyperparameters(contract, mode="from_scratch") == (None, frozenset())
    used, _ = resolve_hyperparameters(contract, mode="from_scratch", overrides=given)
    assert used == Hyperparameters(
        regime="from_scratch", lr_max=1e-3, warmup_steps=5, target_val_loss=3.3
    )
    with pytest.raises(ValueError, match="`overrides` must have `lr_max` and `warmup_steps`"):
        resolve_hyperparameters(contract, mode="from_scratch", overrides={"lr_max": 1e-3})


@pytest.mark.parametrize(
    ("name", "value"), [("lr_max", 1e-4), ("warmup_steps", 5), ("target_val_loss", 9.0)]
)
def test_difference_from_the_defaults_must_be_explicit(name: str, value: float) -> None:
    """Another value fails, unless the user has set it."""
    used = dataclasses.replace(FINETUNE, **{name: value})
    assert _judge(used) is F
    assert _judge(used, name) is P


def test_regime_is_always_that_of_the_mode() -> None:
    """The regime cannot be set."""
    used = dataclasses.replace(FINETUNE, regime="from_scratch")
    assert _judge(used, "regime") is F
    assert _judge(FINETUNE) is P


def test_defaults_are_compared_in_32_bits() -> None:
    """A learning rate that went through 32 bits is the same."""
    assert _judge(dataclasses.replace(FINETUNE, lr_max=4.999999873689376e-05)) is P


def test_default_target_is_that_of_all_where_the_mode_has_none() -> None:
    """A row without a target takes that of `convergence`, for the judge, too."""
    contract = contract_of(
        convergence=CONVERGENCE, hyperparameter_defaults={"finetune": WITHOUT_TARGET}
    )
    used, explicit = resolve_hyperparameters(contract, mode="finetune")
    result = judge_hyperparameters(
        contract, mode="finetune", used=used, explicit=explicit, lr_max_seen=0.0
    )
    assert result.verdict is P


@pytest.mark.parametrize(
    ("lr", "expected"),
    [(5e-5, P), (5e-5 * (1 + 0.9e-6), P), (5e-5 * (1 + 1.1e-6), F), (1e-3, F), (-math.inf, U)],
)
def test_learning_rate_peaks_at_its_maximum(lr: float, expected: Verdict) -> None:
    """The peak may exceed the maximum by a millionth, for rounding; without a log it is unknown."""
    assert _judge(lr=lr) is expected


def test_explicit_maximum_bounds_the_peak() -> None:
    """The maximum that the user set bounds the learning rate, instead of the default."""
    used = dataclasses.replace(FINETUNE, lr_max=1e-3)
    assert _judge(used, "lr_max", lr=1e-3) is P
    assert _judge(used, "lr_max", lr=2e-3) is F


def test_hyperparameters_are_not_judged_without_run_or_defaults() -> None:
    """A run that tells nothing, or a mode without defaults, is undecided."""
    assert _judge(None) is U
    assert _judge(mode=None) is U
    assert _judge(mode="from_scratch") is U


def test_peak_counts_even_without_defaults() -> None:
    """A learning rate above what the run itself tells is a failure anyhow."""
    assert _judge(mode="from_scratch", lr=1.0) is F


def test_provenance_of_real_data_passes() -> None:
    """Data that are real and not cut short pass, also told as numbers."""
    assert judge_provenance(REAL).verdict is P
    assert judge_provenance({**REAL, "fast_dev_run": 0, "overfit_batches": 0}).verdict is P


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("synthetic", True),
        ("synthetic", "false"),
        ("fast_dev_run", True),
        ("fast_dev_run", 3),
        ("overfit_batches", 1),
        ("overfit_batches", 0.1),
        ("overfit_batches", math.nan),
    ],
)
def test_provenance_of_other_data_fails(name: str, value: object) -> None:
    """Scripted data, a dry run, and a run on a few batches fail."""
    result = judge_provenance({**REAL, name: value})
    assert (result.verdict, result.reason) == (F, f"{name} is {value!r}")


@pytest.mark.parametrize("name", list(REAL))
@pytest.mark.parametrize("is_told", [True, False])
def test_provenance_that_is_not_told_is_undecided(name: str, is_told: bool) -> None:
    """What nobody tells is not taken for good."""
    told = {key: value for key, value in REAL.items() if key != name}
    assert judge_provenance({**told, name: None} if is_told else told).verdict is U
    assert judge_provenance(None).verdict is U
