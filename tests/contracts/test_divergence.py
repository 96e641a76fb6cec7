"""Tests of the rule that the validation loss never doubles."""

from __future__ import annotations

import math
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_elche.contracts.gates.divergence import EpochZeroCap, check_val_loss
from lightning_elche.contracts.gates.steps import check_non_divergence, epoch_zero_limit
from lightning_elche.contracts.verdicts import Abort

positive = st.floats(min_value=2.0**-100, max_value=2.0**100, width=32)


def _next_single(value: float) -> float:
    bits = struct.unpack("I", struct.pack("f", value))[0]
    return struct.unpack("f", struct.pack("I", bits + 1))[0]


def _message(epoch: int, *val_losses: float, **options: object) -> str | None:
    violation = check_non_divergence(epoch, val_losses, **options)  # type: ignore[arg-type]
    return None if violation is None else violation.message


def test_divergence_is_found_beyond_twice_the_loss_before() -> None:
    """A loss of 2.029 times the one before diverges, and the message tells both."""
    assert _message(1, 3.5, 7.1) == (
        "DIVERGENCE at epoch 1: val_loss 7.1 > 2.0 x 3.5 (ratio 2.029)"
    )


def test_divergence_carries_what_was_compared() -> None:
    """The violation tells gate, abort, epoch, value and limit."""
    violation = check_non_divergence(1, [3.5, 7.25])
    assert violation is not None
    assert (violation.gate, violation.abort, violation.epoch) == (
        "GATE-TRAIN-005",
        Abort.DIVERGENCE,
        1,
    )
    assert (violation.field, violation.value, violation.limit) == ("val_loss", 7.25, 7.0)


@settings(max_examples=300)
@given(positive)
def test_divergence_begins_right_above_twice_the_loss(previous: float) -> None:
    """Exactly twice the loss passes, and the next 32-bit float does not."""
    assert _message(1, previous, 2.0 * previous) is None
    assert _message(1, previous, _next_single(2.0 * previous)) is not None


def test_divergence_is_not_found_in_decimals_that_are_twice_each_other_in_32_bits() -> None:
    """Nine digits of a 32-bit float and of its double, compared as 64 bits, are not exactly 2x."""
    assert 0.0200000014 > 2.0 * 0.0100000006  # what a comparison without the cast would see
    assert _message(1, 0.0100000006, 0.0200000014) is None


@settings(max_examples=300)
@given(positive)
def test_divergence_is_not_found_in_printed_doubles(previous: float) -> None:
    """A loss and its double, written with nine digits and read again, always pass."""
    assert _message(1, float(f"{previous:.9g}"), float(f"{2.0 * previous:.9g}")) is None


@pytest.mark.parametrize("epoch", [1, 2, 500])
def test_divergence_needs_twice_the_loss_at_any_epoch(epoch: int) -> None:
    """A later epoch has no other factor, and no warning mode."""
    losses = [1.0] * epoch
    assert _message(epoch, *losses, 2.0) is None
    assert _message(epoch, *losses, 2.0000003) is not None


def test_divergence_is_found_after_a_loss_of_zero() -> None:
    """After a loss of 0 any positive loss diverges, another 0 does not."""
    assert _message(1, 0.0, 0.0) is None
    assert _message(1, 0.0, 1e-9) == ("DIVERGENCE at epoch 1: val_loss 1e-09 > 2.0 x 0 (ratio 1)")


@pytest.mark.parametrize("epoch", [0, 1])
def test_divergence_is_found_in_a_negative_loss(epoch: int) -> None:
    """A negative loss cannot be compared by a factor, so it fails at any epoch."""
    assert _message(epoch, *[3.0] * epoch, -0.5) == (
        f"DIVERGENCE at epoch {epoch}: val_loss -0.5 < 0"
    )


@pytest.mark.parametrize("value", [math.nan, math.inf, 1e39])
@pytest.mark.parametrize("epoch", [0, 1])
def test_loss_that_is_not_finite_is_an_instability(epoch: int, value: float) -> None:
    """A loss that is not finite fails as an instability, at epoch 0, too."""
    violation = check_non_divergence(epoch, [*[3.0] * epoch, value])
    assert violation is not None
    assert (violation.gate, violation.abort) == ("GATE-TRAIN-005", Abort.NUMERICAL_INSTABILITY)


def test_loss_that_is_not_finite_is_shown() -> None:
    """The message has the value and no bound."""
    assert _message(0, math.nan) == "NUMERICAL_INSTABILITY at epoch 0: val_loss = nan"


def test_first_epoch_is_capped_in_finetuning() -> None:
    """A loss of exactly 10 passes at epoch 0, and the next 32-bit float does not."""
    assert _message(0, 10.0) is None
    assert _message(0, 10.000001) is not None
    assert _message(0, 31.99) == "DIVERGENCE at epoch 0: val_loss 31.99 > 10 (finetune cap)"


def test_first_epoch_is_capped_by_uniform_guessing_from_scratch() -> None:
    """From scratch the cap is twice the logarithm of the vocabulary, inclusive."""
    from_scratch = {"mode": "from_scratch", "vocab_size": 50257}
    assert epoch_zero_limit("from_scratch", 50257) == pytest.approx(21.64981079, abs=1e-8)
    assert _message(0, 21.649810791015625, **from_scratch) is None
    assert _message(0, 21.649812698364258, **from_scratch) == (
        "DIVERGENCE at epoch 0: val_loss 21.649813 > 21.64981 (from_scratch cap)"
    )


@pytest.mark.parametrize("vocab_size", [-5, 0, 1, 2])
def test_first_epoch_counts_a_vocabulary_below_two_as_two(vocab_size: int) -> None:
    """The cap of a vocabulary of fewer than two tokens is that of two: 2 ln 2."""
    options = {"mode": "from_scratch", "vocab_size": vocab_size}
    assert _message(0, 1.386294, **options) is None
    assert _message(0, 1.386295, **options) is not None


def test_first_epoch_from_scratch_needs_a_vocabulary() -> None:
    """Without the size of the vocabulary there is no cap, and none is guessed."""
    with pytest.raises(ValueError, match="`vocab_size` must be a number"):
        check_non_divergence(0, [1.0], mode="from_scratch")


def test_cap_is_for_the_first_epoch_only() -> None:
    """Beyond epoch 0 only the factor counts, even far above the cap."""
    assert _message(1, 9.0, 17.9) is None


def test_only_the_epoch_before_counts() -> None:
    """Losses that double over two epochs pass, as do losses of epochs long ago."""
    assert _message(2, 1.0, 1.9, 3.6) is None
    assert _message(2, 1.0, 1.9, 3.6, 900.0) is None


@pytest.mark.parametrize("epoch", [-1, 2])
def test_epoch_must_have_a_loss(epoch: int) -> None:
    """An epoch without an entry of its own is a mistake of the caller."""
    with pytest.raises(ValueError, match=r"`epoch` must have its own entry .* has 2, got"):
        check_non_divergence(epoch, [1.0, 2.0])


@pytest.mark.parametrize("previous", [None, math.nan, math.inf])
def test_loss_is_not_compared_with_one_that_is_no_number(previous: float | None) -> None:
    """Where the loss before is not known or not a number, only the value itself is judged."""
    assert check_val_loss(3, 5.0, previous=previous, cap=None) is None
    assert check_val_loss(3, -5.0, previous=previous, cap=None) is not None


def test_first_epoch_is_not_capped_without_a_known_cap() -> None:
    """Where nobody knows the cap, epoch 0 is only judged on its own."""
    assert check_val_loss(0, 1e6, previous=None, cap=None) is None
    cap = EpochZeroCap(mode="finetune", limit=10.0)
    assert check_val_loss(0, 1e6, previous=None, cap=cap) is not None
