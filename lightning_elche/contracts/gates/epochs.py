"""The completed epochs of a run, and what they say of its gates."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from lightning_elche.contracts.gates import ids as gateids
from lightning_elche.contracts.gates.convergence import (
    Progress,
    RunEnd,
    epoch_gaps,
    judge_patience,
    judge_target,
)
from lightning_elche.contracts.gates.placeholder import judge_placeholder
from lightning_elche.contracts.gates.tally import Tally
from lightning_elche.contracts.gates.thresholds import Window, checks_over_epochs
from lightning_elche.contracts.model import Contract
from lightning_elche.contracts.records import EpochRecord
from lightning_elche.contracts.strictjson import jsonable, number_of
from lightning_elche.contracts.values import read_float
from lightning_elche.contracts.verdicts import GateResult, Verdict

__all__ = ["EpochHistory"]

CUTS_SHORT = ("external", "max_steps")  # reasons for which an epoch may end before its time


class EpochHistory:
    """The completed epochs, in the order in which they are added.

    Args:
        contract: Says when a run has converged, and which thresholds there are.

    Attributes:
        val_losses: By epoch.
        progress: How far the run has converged.
    """

    def __init__(self, contract: Contract) -> None:
        self.val_losses: dict[int, float] = {}
        self.progress = Progress()
        self._rules = contract.convergence
        self._made_up: dict[int, Verdict] = {}
        self._batches: dict[int, int] = {}
        self._windows = {gate: Window(check) for gate, check in checks_over_epochs(contract)}

    def add(self, record: EpochRecord, *, device: str | None) -> None:
        """Add an epoch; `device` is where it was trained, `None` if nobody knows."""
        self.val_losses[record.epoch] = record.val_loss
        self.progress = self.progress.after(record.epoch, record.val_loss)
        self._made_up[record.epoch] = judge_placeholder(record, device=device)
        if record.batches is not None:
            self._batches[record.epoch] = record.batches
        for window in self._windows.values():
            metric = getattr(record, window.check.metric, None)
            window.add(record.epoch, number_of(metric))

    def results(
        self,
        end: RunEnd,
        *,
        target: float | None,
        has_cap: bool,
        planned_batches: int | None = None,
        cycled_from: float = math.inf,
    ) -> Iterator[GateResult]:
        """Yield what the epochs say: on 003, 004, 005, EXHAUST and thresholds over epochs.

        Args:
            end: How the run ended.
            target: Largest validation loss that may ship; `None` if there is no target.
            has_cap: Whether the limit of the first epoch is known.
            planned_batches: What each epoch should have, `None` if nobody knows.
            cycled_from: The first epoch with data that began anew, as was announced.
        """
        yield judge_target(self.val_losses, target, end)
        yield judge_patience(self.val_losses, self._rules, end)
        yield self._divergence(end, has_cap=has_cap)
        yield self._exhaustion(end, planned_batches or 0, cycled_from)
        for gate, window in self._windows.items():
            yield window.result(gate)

    def _divergence(self, end: RunEnd, *, has_cap: bool) -> GateResult:
        """Say whether 005 can be judged: epochs that break it have been aborted."""
        tally = Tally(gateids.DIVERGENCE)
        gap = epoch_gaps(self.val_losses, end)
        if gap is not None:
            tally.doubt(gap)
        elif not has_cap:
            tally.doubt("the limit of epoch 0 depends on the mode and on `vocab_size`")
        return tally.result(f"{len(self.val_losses)} epochs")

    def _exhaustion(self, end: RunEnd, planned: int, cycled_from: float) -> GateResult:
        tally = Tally(gateids.EXHAUST)
        last = max(self._batches, default=None)
        for epoch, batches in self._batches.items():
            is_cut = epoch == last and end.stop_reason in CUTS_SHORT
            if batches < planned and epoch < cycled_from and not is_cut:
                tally.fail(f"epoch {epoch} has {batches} of {planned} batches, and no CYCLE event")
        for epoch, verdict in self._made_up.items():
            if verdict is Verdict.FAIL:
                tally.fail(f"epoch {epoch} is a placeholder: loss 1, perplexity e, in no time")
            elif verdict is Verdict.INDETERMINATE:
                tally.doubt(f"epoch {epoch} may be a placeholder: the device is not known")
        return tally.result(f"{len(self.val_losses)} epochs")

    def state_dict(self) -> dict[str, Any]:
        """Return all of it, as JSON has it."""
        return {
            "val_losses": jsonable(list(self.val_losses.items())),
            "best": jsonable(self.progress.best),
            "best_epoch": self.progress.best_epoch,
            "misses": self.progress.misses,
            "batches": list(self._batches.items()),
            "made_up": {str(epoch): own.value for epoch, own in self._made_up.items()},
            "windows": {gate: window.state_dict() for gate, window in self._windows.items()},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from `state`, which a history with the same contract has given."""
        self.val_losses = {epoch: read_float(value) for epoch, value in state["val_losses"]}
        self.progress = Progress(
            best=read_float(state["best"]),
            best_epoch=state["best_epoch"],
            misses=state["misses"],
        )
        self._batches = dict(state["batches"])
        self._made_up = {int(epoch): Verdict(own) for epoch, own in state["made_up"].items()}
        for gate, window in self._windows.items():
            window.load_state_dict(state["windows"][gate])
