"""Ranks whose run is not the recorded one, and a rank 0 of DDP that cannot write."""

from __future__ import annotations

import os
import warnings
from typing import Any

from lightning.pytorch import Callback, seed_everything

from lightning_elche import CadenceConfig, ElCheStrategy
from lightning_elche.partition.errors import ReplayError
from lightning_elche.partition.fs import LocalFs
from lightning_elche.partition.replay import ReplayConfig
from tests.callbacks.partitioned import saver_of
from tests.callbacks.replayed import Adaptive
from tests.ranks import fit

__all__ = ["fail_under_ddp", "verify_others"]


def train(root: str, *, is_ddp: bool = False, every: int | None = None, **options: Any) -> str:
    """Return the error that ends the run of this rank, "" without one."""
    world_size = int(os.environ["WORLD_SIZE"])
    replay, callbacks = options.pop("replay", None), options.pop("callbacks", ())
    saver = saver_of(root, every=every, replay=replay)
    strategy: Any = "ddp"
    if not is_ddp:
        strategy = ElCheStrategy(cadence=CadenceConfig(anchor=3, max_anchor=3), timeout_s=30.0)
    seed_everything(3, verbose=False)
    try:
        fit(
            world_size,
            size=64,
            model=Adaptive(**options),
            strategy=strategy,
            callbacks=[*callbacks, saver],
            enable_checkpointing=True,
        )
    except (ReplayError, OSError, RuntimeError) as err:
        return f"{type(err).__name__}: {err}"
    finally:
        os.environ["WORLD_SIZE"] = str(world_size)  # Lightning removes it at the end of a fit
    return ""


def verify_others(root: str) -> dict[str, Any]:
    """Record a run of each strategy, and verify others against it."""
    told = {}
    for name, is_ddp in (("elche", False), ("ddp", True)):
        train(f"{root}/{name}", is_ddp=is_ddp, replay=ReplayConfig(mode="record"))
        replay = ReplayConfig(mode="verify", expected=f"{root}/{name}")
        flip = {"flips_at": 4, "rank": 1}
        told[name] = train(f"{root}/{name}-other", is_ddp=is_ddp, replay=replay, **flip)
    expected = f"{root}/elche"
    replay = ReplayConfig(mode="verify", expected=expected, on_divergence="warn")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        told["warned"] = train(f"{root}/warned", replay=replay, lr=0.02)
    told["warnings"] = sum("recorded" in str(one.message) for one in caught) + sum(
        "replay diverged" in str(one.message) for one in caught
    )
    return told


class Fills(Callback):
    """Lets the disk be full before the second checkpoint."""

    def on_train_batch_end(self, *args: Any) -> None:
        if args[-1] == 3:
            LocalFs.pwrite = _full  # type: ignore[method-assign]


def _full(*_: Any) -> int:
    raise OSError(28, os.strerror(28))


def fail_under_ddp(root: str) -> str:
    return train(root, is_ddp=True, every=2, callbacks=[Fills()])
