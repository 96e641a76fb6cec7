"""The options of `GateTrain`, checked against its contract and the Trainer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

from lightning.pytorch.strategies import DeepSpeedStrategy, FSDPStrategy, ModelParallelStrategy

from lightning_elche.contracts.gates import ids as gateids
from lightning_elche.contracts.model import Contract

if TYPE_CHECKING:
    from lightning.pytorch import Trainer
    from lightning.pytorch.strategies import Strategy

__all__ = ["GateOptions", "Recovers", "check_trainer", "refuse_sharded"]

CHOICES = {
    "mode": ("finetune", "from_scratch"),
    "checkpoint": ("lightning", "partition", "off"),
    "on_write_error": ("warn", "raise"),
    "log_ranks": ("all", "zero"),
    "sync": ("auto", "immediate", "deferred"),
}
NEEDS_VALIDATION = (gateids.ARTIFACTS, gateids.TARGET, gateids.PATIENCE, gateids.DIVERGENCE)


class Recovers(Protocol):
    """May undo a step that would otherwise break the contract."""

    def offer(self, step: int) -> bool:
        """Return whether the step, whose numbers are not finite, is undone, or will be.

        Args:
            step: As it would be recorded.
        """
        ...


@dataclass(frozen=True, kw_only=True)
class GateOptions:
    """As of `GateTrain`."""

    run_dir: str | Path | None
    mode: Literal["finetune", "from_scratch"]
    vocab_size: int | None
    overrides: Mapping[str, float]
    val_loss: str
    num_tokens: Callable[[Any], int] | None
    clip_norm: float | None
    checkpoint: Literal["lightning", "partition", "off"]
    on_write_error: Literal["warn", "raise"]
    synthetic: bool
    log_ranks: Literal["all", "zero"]
    sync: Literal["auto", "immediate", "deferred"]
    flush_every: int
    flush_ms: float

    def __post_init__(self) -> None:
        for name, choices in CHOICES.items():
            if getattr(self, name) not in choices:
                raise ValueError(f"`{name}` must be one of {choices}, got {getattr(self, name)!r}.")
        if self.mode == "from_scratch" and (self.vocab_size is None or self.vocab_size < 2):
            raise ValueError(
                '`vocab_size` must be at least 2 for `mode="from_scratch"`, since the limit of the '
                f"first epoch is 2 ln(vocab_size), got {self.vocab_size}."
            )
        if self.clip_norm is not None and not self.clip_norm > 0.0:
            raise ValueError(f"`clip_norm` must be positive, got {self.clip_norm}.")
        if self.flush_every < 1 or self.flush_ms < 0.0:
            raise ValueError(
                "`flush_every` must be at least 1 and `flush_ms` at least 0, got "
                f"{self.flush_every} and {self.flush_ms}."
            )


def refuse_sharded(strategy: Strategy) -> None:
    """Refuse a strategy under which a rank has only a part of each gradient.

    Raises:
        ValueError: Naming the strategy.
    """
    if isinstance(strategy, (DeepSpeedStrategy, FSDPStrategy, ModelParallelStrategy)):
        raise ValueError(
            "`strategy` must leave each rank its whole gradients, whose norm GateTrain judges, got "
            f"{type(strategy).__name__}. Use ElCheStrategy or DDP."
        )


def check_trainer(trainer: Trainer, contract: Contract, options: GateOptions) -> None:
    """Refuse a Trainer under which the contract could not be kept or judged.

    Raises:
        ValueError: Naming the argument of the Trainer.
    """
    refuse_sharded(trainer.strategy)
    least = contract.convergence.min_epochs_before_early_stop
    if (trainer.min_epochs or 0) > least:
        raise ValueError(
            f"`Trainer(min_epochs=...)` must be at most {least} "
            "(`min_epochs_before_early_stop` of the contract), got "
            f"{trainer.min_epochs}: Lightning would go on after the contract has ended the run."
        )
    if options.clip_norm is not None and trainer.gradient_clip_val:
        raise ValueError(
            "`clip_norm` must not be set together with `Trainer(gradient_clip_val=...)`, got "
            f"{options.clip_norm} and {trainer.gradient_clip_val}. Keep one of them."
        )
    if not any(contract.declares(gate) for gate in NEEDS_VALIDATION):
        return
    if trainer.check_val_every_n_epoch != 1 or not trainer.enable_validation:
        raise ValueError(
            "The contract judges the validation loss of every epoch, so that the model needs a "
            "`validation_step` with data and `Trainer(check_val_every_n_epoch=1)`, got "
            f"{trainer.check_val_every_n_epoch}, validation "
            f"{'on' if trainer.enable_validation else 'off'}. Or take GATE-TRAIN-002 to 005 out "
            "of the contract."
        )
