"""The rule on the validation loss of an epoch: it never doubles."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from lightning_elche.contracts.float32 import epoch_zero_limit, to_float32
from lightning_elche.contracts.gates import ids as gateids
from lightning_elche.contracts.values import shown
from lightning_elche.contracts.verdicts import Abort, Violation

__all__ = ["EpochZeroCap", "check_non_divergence", "check_val_loss"]

MAX_RATIO = 2.0
SMALLEST_DIVISOR = 1e-9


@dataclass(frozen=True, kw_only=True)
class EpochZeroCap:
    """The largest validation loss of the first epoch.

    Attributes:
        mode: Whose cap it is: "finetune" or "from_scratch".
        limit: The loss.
    """

    mode: str
    limit: float


def check_non_divergence(
    epoch: int,
    val_losses: Sequence[float],
    *,
    mode: str = "finetune",
    vocab_size: int | None = None,
) -> Violation | None:
    """Return how the validation loss of an epoch breaks the rule of non-divergence.

    It must be finite, not negative, and at most twice that of the epoch before; in the first
    epoch, at most 10 or twice the loss of uniform guessing.

    Args:
        epoch: The epoch, from 0.
        val_losses: Validation losses of the epochs up to this one.
        mode: "finetune" or "from_scratch".
        vocab_size: Number of tokens; needed for "from_scratch".

    Raises:
        ValueError: If `val_losses` has none for `epoch`, or `vocab_size` is needed.
    """
    if not 0 <= epoch < len(val_losses):
        raise ValueError(
            f"`epoch` must have its own entry in `val_losses`, which has {len(val_losses)}, "
            f"got {epoch}."
        )
    previous = val_losses[epoch - 1] if epoch else None
    cap = EpochZeroCap(mode=mode, limit=epoch_zero_limit(mode, vocab_size))
    return check_val_loss(epoch, val_losses[epoch], previous=previous, cap=cap)


def check_val_loss(
    epoch: int, val_loss: float, *, previous: float | None, cap: EpochZeroCap | None
) -> Violation | None:
    """Return how a validation loss diverges from the one before; `None` if it does not.

    Args:
        epoch: The epoch, from 0.
        val_loss: Its validation loss.
        previous: The one of the epoch before; `None` if it is not known.
        cap: The limit of epoch 0; `None` if it is not known.
    """
    value = to_float32(val_loss)
    if not math.isfinite(value):
        return _diverged(epoch, value, f"= {shown(value)}", abort=Abort.NUMERICAL_INSTABILITY)
    if value < 0.0:
        return _diverged(epoch, value, f"{shown(value)} < 0", limit=0.0)
    if epoch == 0:
        if cap is None or value <= cap.limit:
            return None
        text = f"{shown(value)} > {shown(cap.limit)} ({cap.mode} cap)"
        return _diverged(epoch, value, text, limit=cap.limit)
    before = math.nan if previous is None else to_float32(previous)
    if not value > MAX_RATIO * before:
        return None
    ratio = value / max(before, SMALLEST_DIVISOR)
    text = f"{shown(value)} > {MAX_RATIO} x {shown(before)} (ratio {ratio:.4g})"
    return _diverged(epoch, value, text, limit=MAX_RATIO * before)


def _diverged(
    epoch: int,
    value: float,
    text: str,
    *,
    limit: float | None = None,
    abort: Abort = Abort.DIVERGENCE,
) -> Violation:
    return Violation(
        gate=gateids.DIVERGENCE,
        abort=abort,
        message=f"{abort.name} at epoch {epoch}: val_loss {text}",
        epoch=epoch,
        field="val_loss",
        value=value,
        limit=limit,
    )
