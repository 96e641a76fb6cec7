"""What a resumed run is told of the checkpoint, and the environment that a run has."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from lightning_elche.partition.replay_file import env_differences

if TYPE_CHECKING:
    from lightning_elche.callbacks.replay_env import Env
    from lightning_elche.strategies.checkpoint_io import Loaded

__all__ = ["RestoreReport", "report_of"]


@dataclass(frozen=True, kw_only=True)
class RestoreReport:
    """What a run was resumed from.

    Attributes:
        path: The checkpoint.
        step: Its step.
        sync_index: Averaging events before it.
        loaded: Names of the tensors that the run has taken over.
        skipped: Those of the model that it has no place for.
        missing: Those of the model that the checkpoint does not have.
        rejected: Newer checkpoints that must not be read, with the reason.
        world_saved: Number of ranks that saved it.
        world_now: Number of ranks now.
        env: Expected and actual value of each entry in which environments differ.
        replay: "exact" if what follows has the bits of the run that was never stopped; else
            "approximate", or "none" if the checkpoint does not say where to go on.
    """

    path: Path
    step: int
    sync_index: int
    loaded: tuple[str, ...]
    skipped: tuple[str, ...]
    missing: tuple[str, ...]
    rejected: tuple[tuple[str, str], ...] = ()
    world_saved: int = 1
    world_now: int = 1
    env: Mapping[str, tuple[object, object]] = field(default_factory=dict)
    replay: Literal["exact", "approximate", "none"] = "exact"


def report_of(
    loaded: Loaded, *, model: Collection[str], env: Env, is_exact: bool | None
) -> RestoreReport:
    """Return the report of a resumed run.

    Args:
        loaded: The checkpoint.
        model: Names in the state of the model.
        env: The present environment.
        is_exact: Whether nothing but the environment can make a difference; `None` if the
            checkpoint does not say where to go on.
    """
    manifest = loaded.manifest
    differences = env_differences(manifest.env, env)
    present = {f"model/{name}" for name in model}
    saved = {name for name in loaded.names if name.startswith("model/")}
    replay: Literal["exact", "approximate", "none"] = "none"
    if is_exact is not None:
        replay = "exact" if is_exact and not differences else "approximate"
    return RestoreReport(
        path=loaded.path,
        step=manifest.step,
        sync_index=manifest.sync_index,
        loaded=tuple(sorted(loaded.names - (saved - present))),
        skipped=tuple(sorted(saved - present)),
        missing=tuple(sorted(present - saved)),
        rejected=loaded.rejections,
        world_saved=manifest.world,
        world_now=int(env["world"] or 1),
        env=differences,
        replay=replay,
    )
