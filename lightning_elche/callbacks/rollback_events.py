"""Rolling back under ElCheStrategy, where ranks meet at averaging events only."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, NoReturn

import torch

from lightning_elche.control.recovery import Decision, Stage
from lightning_elche.exceptions import RecoveryHalted

if TYPE_CHECKING:
    from lightning_elche.callbacks.rollback_run import RollbackRun
    from lightning_elche.control.events import AveragingEvent
    from lightning_elche.ops.ring import Slot

__all__ = ["RollbackEvents"]


class RollbackEvents:
    """Is the recovery source of a rank, and an abort source that ends the run on all ranks.

    Args:
        run: Repairs this rank. Its strategy is an `ElCheStrategy` whose fit is under way.
    """

    def __init__(self, run: RollbackRun) -> None:
        self._run = run
        strategy: Any = run.strategy
        strategy.attach_recovery(self)
        strategy.attach_abort_source(self)
        strategy.hold_anchor(run.ladder.mode == "conservative")

    def on_average_end(self, event: AveragingEvent) -> None:
        """Begin anew with the snapshots: parameters were exchanged."""
        run = self._run
        strategy: Any = run.strategy
        self._begin_round()
        # It still does if it was spoiled after it had handed in, in the background.
        if run.is_sitting_out and not strategy.is_sitting_out:
            run.is_sitting_out = False
            self._clear_spoiled_moments()
        if not (run.ending.is_over or run.is_sitting_out):
            is_common = event.is_aligned and event.crossed_nodes
            run.put(event=event.index if is_common else -1)
        strategy.hold_anchor(run.ladder.mode == "conservative")
        if run.cautious_save.is_due():
            run.cautious_save.ask()

    def _begin_round(self) -> None:
        self._run.ring.begin_round()
        self._run.recovery.begin_round()
        self._run.put_soon()

    def _clear_spoiled_moments(self) -> None:
        """Forget optimizer states that are not finite, where they are not averaged."""
        run = self._run
        if not all(bool(torch.isfinite(number)) for number in run.ring.live_sums()):
            for optimizer in run.trainer.optimizers:
                optimizer.state.clear()

    # As of `RecoverySource`

    def settle(self) -> None:
        """As of `RecoverySource`."""
        run = self._run
        if not (run.ending.is_over or run.is_sitting_out):
            run.check()
        self._begin_round()  # what is handed in now cannot be undone later

    def restorable_event(self) -> int:
        """As of `RecoverySource`."""
        return max((slot.event for slot in self._events()), default=-1)

    def restore_event(self, index: int) -> None:
        """As of `RecoverySource`."""
        run = self._run
        slot = next(slot for slot in self._events() if slot.event == index)
        run.is_sitting_out = False
        run.recovery.begin_round()
        reason = f"The outcome of averaging event {index}, on all ranks"
        decision = Decision(action="restore", index=None, is_new=False, reason=reason)
        run.last_decision = decision
        run.restore(slot, decision, "no rank was sound")

    def restore_saved(self) -> bool:
        """As of `RecoverySource`."""
        run = self._run
        reason = "No event is from before the damage"
        decision = Decision(action="lacks", index=None, is_new=False, reason=reason)
        is_restored = run.restore_from_disk(decision, "no rank was sound", None)
        run.is_sitting_out &= not is_restored
        return is_restored

    def halt(self, reason: str) -> NoReturn:
        """As of `RecoverySource`."""
        run = self._run
        run.ending.end(reason, step=run.steps, is_poisoned=True)
        assert run.ending.halted is not None
        raise run.ending.halted

    def _events(self) -> list[Slot]:
        ring = self._run.ring
        slots = [*ring.earlier, *ring.slots]
        return [slot for slot in slots if slot.event >= 0 and slot.stage > Stage.PENDING]

    # As of `AbortSource`

    def pending_abort(self, *, settle: bool = False) -> int:
        """As of `AbortSource`."""
        del settle  # `RecoverySource.settle` comes before
        run = self._run
        is_wanted = run.ending.halted is not None and run.recovery.policy.on_halt == "raise"
        return RecoveryHalted.exit_code if is_wanted else 0

    def words(self) -> str:
        """As of `AbortSource`."""
        halted = self._run.ending.halted
        if halted is None:
            return ""
        words = {"reason": halted.reason, "step": halted.step, "is_poisoned": halted.is_poisoned}
        return json.dumps(words)

    def raise_agreed(self, code: int, rank: int, words: str) -> NoReturn:
        """As of `AbortSource`."""
        assert code == RecoveryHalted.exit_code
        run, facts = self._run, json.loads(words)
        if run.ending.halted is None:
            run.ending.end(facts["reason"], step=run.steps, is_poisoned=False)
        level, is_child = int(run.ladder.level), run.ending.is_child
        raise RecoveryHalted(rank=rank, level=level, is_child=is_child, **facts)
