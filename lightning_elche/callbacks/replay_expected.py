"""The record that a run is verified against, the same for all ranks."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING

from lightning_elche.callbacks.replay_files import Expected, read_expected
from lightning_elche.callbacks.run_events import emit
from lightning_elche.partition.errors import InvalidConfig, ReplayError
from lightning_elche.partition.replay_file import env_differences

if TYPE_CHECKING:
    from collections.abc import Mapping

    from lightning.pytorch import Trainer

    from lightning_elche.partition.replay import ReplayConfig

__all__ = ["agreed_record", "compare_env"]


def agreed_record(
    trainer: Trainer, config: ReplayConfig, *, restored_step: int | None, has_schedule: bool
) -> Expected:
    """Return the expected record, as rank 0 has read it; every rank calls this.

    Args:
        trainer: Has its process group.
        config: What is wanted.
        restored_step: The step that is resumed from, `None` for a start.
        has_schedule: Whether ranks meet by a schedule.

    Raises:
        FileNotFoundError: If there is none.
        ReplayFormatError: If it cannot be read.
    """
    outcome: Expected | Exception | None = None
    if trainer.is_global_zero:
        try:
            outcome = read_expected(
                Path(str(config.expected)), restored_step=restored_step, has_schedule=has_schedule
            )
        except (OSError, ReplayError) as err:
            outcome = err
    outcome = trainer.strategy.broadcast(outcome)
    if isinstance(outcome, Exception):
        raise outcome
    assert outcome is not None
    if outcome.scope != config.scope:
        raise InvalidConfig(
            f"`scope` must be that of the record, {outcome.scope!r}, got {config.scope!r}."
        )
    return outcome


def compare_env(
    trainer: Trainer,
    expected: Mapping[str, object],
    actual: Mapping[str, object],
    *,
    should_raise: bool,
) -> None:
    """Tell in what the environment of this rank is not the recorded one; every rank calls this.

    Args:
        trainer: Has its process group.
        expected: The environment then.
        actual: The present one.
        should_raise: Whether a difference on any rank ends the run.

    Raises:
        ReplayError: On all ranks, if that is wanted and an environment differs.
    """
    rank, differences = trainer.global_rank, env_differences(expected, actual)
    told = ", ".join(f"{key} {old!r} -> {new!r}" for key, (old, new) in differences.items())
    text = f"The environment of rank {rank} is not that of the record: {told}."
    if differences:
        emit("replay_env", rank=rank, differences=differences)
        if not should_raise:
            warnings.warn(f"{text} Numbers may differ for that reason.", stacklevel=2)
    is_refused = bool(differences) and should_raise
    if trainer.strategy.reduce_boolean_decision(is_refused, all=False):
        raise ReplayError(text if is_refused else "The environment of another rank differs.")
