"""Goes on with a run where one rank has run out of memory, or has spoiled its parameters."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import rank_zero_info

from lightning_elche.callbacks.fault_healer import Healer
from lightning_elche.callbacks.fault_tally import FaultTally
from lightning_elche.callbacks.rollback import Rollback
from lightning_elche.callbacks.run_events import emit
from lightning_elche.control.requests import StopCause
from lightning_elche.coordination.faults import FaultConfig, OomLadder, Rung
from lightning_elche.exceptions import BreakerTripped
from lightning_elche.strategies.elche import ElCheStrategy

if TYPE_CHECKING:
    from lightning.pytorch import LightningModule, Trainer

    from lightning_elche.control.events import AveragingEvent

__all__ = ["FaultGuard"]


class FaultGuard:
    """What is done about faults of one rank, for the hooks of a callback to call.

    A batch that does not fit into memory is skipped. A rank with parameters that are not finite
    adopts the average of the others, unless there is a `Rollback`, which undoes the damage. Needs
    ElCheStrategy and automatic optimization; what cannot be done otherwise is told once.

    Args:
        config: What to do, and when it is too much.
    """

    name = "faults"

    def __init__(self, config: FaultConfig | None = None) -> None:
        self.config = config or FaultConfig()
        self._ladder = OomLadder(self.config)
        self._strategy: ElCheStrategy | None = None
        self._healer: Healer | None = None
        self._tally = FaultTally(1)
        self._tripped: BreakerTripped | None = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin to watch the steps."""
        del pl_module
        strategy: Any = trainer.strategy
        self._trainer, self._rank = trainer, trainer.global_rank
        self._ladder.reset()
        self._tally, self._tripped = FaultTally(trainer.world_size), None
        if not isinstance(strategy, ElCheStrategy):
            rank_zero_info(
                f"Faults of a rank end the run with {type(strategy).__name__}: batches are skipped "
                "and parameters are healed with ElCheStrategy only."
            )
            return
        self._strategy = strategy
        if self.config.oom == "skip":
            reason = strategy.attach_faults(self, redeal=self.config.redeal_skipped)
            if reason:
                rank_zero_info(f"No batch is skipped when memory runs out: {reason}.")
        callbacks: list[Any] = trainer.callbacks  # type: ignore[attr-defined]  # set by a connector
        # Without averaging events there is nobody to be healed by.
        if strategy.is_running and not any(isinstance(other, Rollback) for other in callbacks):
            self._healer = Healer(trainer, strategy, self.config, self._spoiled, self._lost)

    def on_average_end(self, event: AveragingEvent) -> None:
        """Count what all ranks have reported."""
        self._tally.add(event.reports)
        if self._healer is not None:
            self._healer.on_average_end()

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Tell the numbers of all ranks."""
        del trainer, pl_module
        self._close()

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """As `on_train_end`."""
        del trainer, pl_module, exception
        self._close()

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """As `on_train_end`."""
        del trainer, pl_module
        if stage == TrainerFn.FITTING:
            self._close()

    def status(self) -> dict[str, Any]:
        """Return the numbers by rank, and what this one is at; JSON-serialisable."""
        tally = self._tally
        return {
            "skipped": list(tally.skipped),
            "sat_out": list(tally.sat_out),
            "healed": list(tally.healed),
            "is_probing": self._ladder.is_probing,
            "tripped": None if self._tripped is None else str(self._tripped),
        }

    def _close(self) -> None:
        strategy, self._strategy, self._healer = self._strategy, None, None
        if strategy is not None:
            strategy.detach_faults()
            if line := self._tally.line():
                rank_zero_info(line)

    # As of `FaultSink`

    def learnt(self) -> None:
        """As of `FaultSink`."""
        self._ladder.learnt()

    def skipped(self, part: Literal["forward", "backward"], batches: int) -> None:
        """As of `FaultSink`.

        Raises:
            BreakerTripped: On one device, if it is enough and nothing else ends the run.
        """
        assert self._strategy is not None
        if not self._strategy.is_running:
            self._tally.skipped[0] += batches
        if self._tripped is not None:
            self._end_alone(self._tripped)
            return
        rung = self._ladder.skipped(can_halve=self._loader_to_halve() is not None)
        emit("batch_skipped", rank=self._rank, part=part, batches=batches, in_a_row=rung.failures)
        self._act_on(rung)

    def _act_on(self, rung: Rung) -> None:
        if rung.action == "halve":
            self._halve()
        elif rung.action == "sit_out":
            emit("sit_out", rank=self._rank, events=rung.events, failures=rung.failures)
            self._sit_out(rung.events)
        elif rung.action == "stop":
            self._trip(f"rank:{self._rank}:oom", rung.failures)
            self._sit_out(1)  # what it would skip until all have heard of the stop

    def _sit_out(self, events: int) -> None:
        if self._strategy is not None and self._strategy.is_running:
            self._strategy.stay_idle(events)

    def _spoiled(self, events: int, is_too_often: bool) -> None:
        emit("nonfinite", rank=self._rank, events_in_a_row=events)
        if is_too_often and self._tripped is None:
            self._trip(f"rank:{self._rank}:nonfinite", events)

    def _lost(self, reason: str) -> None:
        emit("nonfinite", rank=self._rank, reason=reason)
        self._trip("run:nonfinite", 1)

    def _trip(self, key: str, failures: int) -> None:
        error = self._tripped = BreakerTripped(key, failures)
        emit("breaker", key=key, state="open", failures=failures)
        assert self._strategy is not None
        self._strategy.control.request_stop(StopCause.BREAKER, str(error), error=error)

    def _end_alone(self, error: BreakerTripped) -> None:
        """End the run on one device, where nobody has heard of the stop in time for this batch."""
        assert self._strategy is not None
        if not self._strategy.is_running:
            raise error

    # A smaller batch size

    def _loader_to_halve(self) -> Any:  # noqa: ANN401  # whatever has a batch size
        """Return what takes another batch size on this rank alone, if anything does.

        Where one pool deals the batches, they are equal on all ranks.
        """
        strategy = self._strategy
        if strategy is None or (strategy.is_running and strategy.run.has_pool):
            return None
        loader = self._trainer.train_dataloader
        parts = (getattr(loader, name, None) for name in ("batch_sampler", "sampler", "dataset"))
        owners = (owner for owner in (*parts, loader) if hasattr(owner, "set_batch_size"))
        return next((owner for owner in owners if getattr(owner, "batch_size", 0) > 1), None)

    def _halve(self) -> None:
        owner, strategy = self._loader_to_halve(), self._strategy
        size = owner.batch_size // 2
        owner.set_batch_size(size)
        emit("batch_size_halved", rank=self._rank, batch_size=size)
        if strategy is not None and strategy.is_running:
            strategy.run.stream_batch_size = size
