"""Options of the outer optimizer."""

from __future__ import annotations

import math

import pytest

from lightning_elche.control.outer import OuterOptimizer


def test_defaults_are_those_of_the_paper() -> None:
    """DiLoCo: learning rate 0.7, Nesterov momentum 0.9."""
    assert OuterOptimizer() == OuterOptimizer(lr=0.7, momentum=0.9, nesterov=True)


@pytest.mark.parametrize("lr", [0.0, -1.0, math.inf, math.nan])
def test_learning_rate_must_be_positive(lr: float) -> None:
    """The message names the option and its value."""
    with pytest.raises(ValueError, match=f"`lr` must be a positive number, got {lr}"):
        OuterOptimizer(lr=lr)


@pytest.mark.parametrize("momentum", [-0.1, 1.0, math.nan])
def test_momentum_must_be_below_one(momentum: float) -> None:
    """At 1 nothing would ever be forgotten."""
    with pytest.raises(ValueError, match=rf"`momentum` must be in \[0, 1\), got {momentum}"):
        OuterOptimizer(momentum=momentum)
