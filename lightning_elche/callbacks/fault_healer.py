"""Lets a rank with parameters that are not finite adopt the average of the others."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from lightning_elche.coordination.faults import FaultConfig, HealLadder
from lightning_elche.ops.finite import read_together, totals
from lightning_elche.ops.snapshot import LiveState

if TYPE_CHECKING:
    from lightning.pytorch import Trainer
    from torch import Tensor

    from lightning_elche.strategies.elche import ElCheStrategy

__all__ = ["Healer"]


class Healer:
    """Is the recovery source of a rank that keeps no earlier state.

    Args:
        trainer: About to train; its strategy is `strategy`.
        strategy: Whose fit on several ranks is under way.
        config: When it is enough.
        tell: Called with the number of events in a row at which the rank was spoiled, and whether
            that is too often.
        halt: Called on every rank, with the reason, where none is sound.
    """

    def __init__(
        self,
        trainer: Trainer,
        strategy: ElCheStrategy,
        config: FaultConfig,
        tell: Callable[[int, bool], None],
        halt: Callable[[str], None],
    ) -> None:
        self._strategy = strategy
        self._tell, self._halt = tell, halt
        self._ladder = HealLadder(config)
        self._live = LiveState(
            module=trainer.lightning_module,
            device=strategy.root_device,
            optimizers=trainer.optimizers,
        )
        self._masks = self._live.infinite_buffers()
        self._was_finite, self._is_out = True, False
        strategy.attach_recovery(self)

    def _is_finite(self) -> bool:
        """Return whether parameters and buffers are. Cost: one pass over them, and one read."""
        named = self._live.module_tensors()
        return _are_finite(named[name] for name in named.keys() - self._masks)

    def on_average_end(self) -> None:
        """Begin anew with the optimizers of a rank that has adopted the average."""
        is_too_often = self._ladder.report(is_finite=self._was_finite)
        if not self._was_finite:
            self._tell(self._ladder.failures, is_too_often)
        if self._is_out and not self._strategy.is_sitting_out:
            self._is_out = False
            # Where states are averaged, too, it has adopted those, unless layouts differ.
            keeps_own = self._strategy.keeps_optimizer_state
            if keeps_own or not _are_finite(self._live.cells().values()):
                for optimizer in self._live.optimizers:
                    optimizer.state.clear()

    # As of `RecoverySource`

    def settle(self) -> None:
        """As of `RecoverySource`."""
        self._was_finite = self._is_finite()
        if not self._was_finite:
            self._is_out = True
            self._strategy.sit_out()

    def restorable_event(self) -> int:
        """As of `RecoverySource`."""
        return -1

    def restore_event(self, index: int) -> None:
        """As of `RecoverySource`."""
        raise AssertionError(f"nobody keeps event {index}")

    def restore_saved(self) -> bool:
        """As of `RecoverySource`."""
        return False

    def halt(self, reason: str) -> None:
        """As of `RecoverySource`."""
        self._halt(reason)


def _are_finite(tensors: Iterable[Tensor]) -> bool:
    return all(math.isfinite(number) for number in read_together(totals(tensors)))
