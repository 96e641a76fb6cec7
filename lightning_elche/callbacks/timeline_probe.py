"""Writes to the event log what the training thread of this rank does."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lightning_elche.callbacks.step_wrapping import WrappedMethod
from lightning_elche.callbacks.timeline_compile import CompileWatch
from lightning_elche.coordination.decisions import decisions_of
from lightning_elche.timeline.fold import StepFold

if TYPE_CHECKING:
    from collections.abc import Callable

    from lightning.pytorch import Trainer

    from lightning_elche.control.events import AveragingEvent
    from lightning_elche.control.schedule import Plan
    from lightning_elche.timeline.events import EventLog

__all__ = ["RankProbe"]

FOLD_NS = 10**9  # where there are no averages
COMPUTE = ("training_step", "backward", "optimizer_step")


class RankProbe:
    """Stands around the methods by which Lightning computes and saves.

    Between the end of one and the next begin of a step there are callbacks, loggers, the loop and
    the loader, of which the loader is timed by itself. Per step nothing is recorded: a window is
    one record.

    Args:
        trainer: Has the strategy.
        log: Gets the records.
        stall_ms: A wait for data of at least this long is a record of its own.
        detail_steps: Record the begin of this many steps of each window.
        has_averages: Windows end with averages, else after a second.
    """

    def __init__(
        self,
        trainer: Trainer,
        log: EventLog,
        *,
        stall_ms: float,
        detail_steps: int,
        has_averages: bool,
    ) -> None:
        strategy = trainer.strategy
        self._trainer, self._log, self._clock = trainer, log, log.clock_ns
        self._stall_ns = int(1e6 * stall_ms)
        self._fold = StepFold(detail_steps=detail_steps)
        self._log_began_ns = self._clock()
        self._window_began_ns = 0  # before the first step there is none
        self._num_windows = self._inner_ns = self._inner_total_ns = self._inner_ended_ns = 0
        self._left_ns = self._gap_began_ns = self._gap_inner_ns = 0
        self._validation_began_ns = self._inner_before_ns = 0
        self._plan: Plan | None = None
        self._has_averages = has_averages
        self._timing = getattr(strategy, "input_timing", None)
        if self._timing is not None:
            self._timing.listeners.append(self._note_input)
        around: dict[str, Callable[..., Any]] = {
            "on_train_batch_start": self._begin_step,
            **dict.fromkeys(COMPUTE, self._compute),
        }
        self._wrapped = [WrappedMethod(strategy, name, call) for name, call in around.items()]
        self._wrap(trainer, "save_checkpoint", "checkpoint")
        self._wraps_pauses = False
        self._compiling = CompileWatch(self._note_compiling, self._clock)
        self._compiling.attach()

    def close(self) -> None:
        """Record the rest, and leave the strategy as it was; a second call does nothing."""
        for wrapped in self._wrapped:
            wrapped.restore()
        self._compiling.close()
        if not self._wrapped:
            return
        self._wrapped = []
        if self._timing is not None:
            self._timing.listeners.remove(self._note_input)
        now_ns = self._clock()
        if self._window_began_ns:
            self._end_window(now_ns)
        else:
            self._log.span("startup", self._log_began_ns, now_ns - self._log_began_ns)

    # What the Trainer tells

    def on_batch_start(self) -> None:
        """Take what lay between two batches as waiting for data, if that is not measured."""
        if self._timing is None and self._gap_began_ns:
            inner_ns = self._inner_total_ns - self._gap_inner_ns
            self._note_input(self._gap_began_ns, self._clock() - self._gap_began_ns - inner_ns)

    def on_batch_end(self) -> None:
        """Mark the end of a batch, for the same."""
        self._gap_began_ns, self._gap_inner_ns = self._clock(), self._inner_total_ns

    def on_validation_start(self) -> None:
        """Mark that validation begins."""
        self._validation_began_ns = self._clock()
        self._inner_before_ns = self._inner_total_ns

    def on_validation_end(self) -> None:
        """Record a validation; the sanity check belongs to the start."""
        if self._trainer.sanity_checking:
            return
        nested_ns = self._inner_total_ns - self._inner_before_ns  # checkpoints that it led to
        self._inner("validation", self._validation_began_ns)
        self._inner_ns -= nested_ns
        self._inner_total_ns -= nested_ns
        self._log.instant("validation_end", epoch=self._trainer.current_epoch)

    def on_average_end(self, event: AveragingEvent) -> None:
        """Record a window and the averaging event that has ended it."""
        now_ns, own = self._clock(), event.reports[self._trainer.global_rank]
        if not self._window_began_ns:
            self._start(now_ns)
        if event.pause and not self._wraps_pauses:
            self._wraps_pauses = True
            self._wrap(self._trainer.strategy.run.pause, "wait_out", "paused")  # type: ignore[attr-defined]  # ours
        # In the background the exchange was over long ago, and what took time was to apply it.
        is_fresh = event.exchanged_ns > self._fold.ended_ns
        left_ns = event.exchanged_ns if is_fresh else now_ns
        idle_from_ns = max(self._fold.ended_ns, self._window_began_ns, self._inner_ended_ns)
        gap_ns = max(0, left_ns - idle_from_ns)
        transfer_ns = min(int(1e6 * event.transfer_ms), gap_ns)
        waited_ns = int(1e6 * event.wait_ms)
        standing_ns = min(waited_ns, gap_ns - transfer_ns)
        arrived_ns = left_ns - transfer_ns - standing_ns
        is_cuda = self._trainer.strategy.root_device.type == "cuda"
        self._end_window(
            arrived_ns,
            index=event.index,
            samples=own.samples,
            skipped=own.skipped,
            throttle_ns=int(1e6 * own.throttle_ms),
            wait_ns=waited_ns - standing_ns,
            device_ns=int(1e6 * own.compute_ms) if is_cuda else None,
            **({"sits_out": True} if own.sits_out else {}),
        )
        if standing_ns:
            self._log.span("average_wait", arrived_ns, standing_ns, index=event.index)
        self._log.span("average_transfer", left_ns - transfer_ns, transfer_ns, index=event.index)
        self._window_began_ns = left_ns
        if event.exchanged_ns:
            self._log.clock(event.exchanged_ns, average=event.index)
        self._tell(event, left_ns, waited_ns, transfer_ns)
        self._log.flush()

    # What stands around methods

    def _begin_step(self, method: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
        result = method(*args, **kwargs)
        now_ns = self._clock()
        if not self._window_began_ns:
            self._start(now_ns)
        elif not self._has_averages and now_ns - self._window_began_ns >= FOLD_NS:
            self._end_window(now_ns)
        self._fold.begin(now_ns)
        return result

    def _compute(self, method: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
        try:
            return method(*args, **kwargs)
        finally:
            self._fold.end(self._clock())

    def _wrap(self, owner: object, name: str, kind: str) -> None:
        """Record each call of a method as a span."""

        def around(method: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
            began_ns = self._clock()
            try:
                return method(*args, **kwargs)
            finally:
                self._inner(kind, began_ns)

        self._wrapped.append(WrappedMethod(owner, name, around))

    def _note_input(self, began_ns: int, waited_ns: int) -> None:
        if not self._window_began_ns:
            return  # workers that start belong to the start
        if waited_ns >= self._stall_ns:
            self._inner("input", began_ns, waited_ns)
        else:
            self._fold.input_ns += waited_ns

    def _note_compiling(self, began_ns: int, duration_ns: int) -> None:
        if self._window_began_ns:
            self._inner("compile", began_ns, duration_ns)
        else:
            self._log.span("compile", began_ns, duration_ns)  # within the start

    # Records

    def _inner(self, kind: str, began_ns: int, duration_ns: int | None = None) -> None:
        """Record what took place within a window, which is not to hold it as well."""
        if duration_ns is None:
            duration_ns = self._clock() - began_ns
        self._log.span(kind, began_ns, duration_ns)
        self._inner_ns += duration_ns
        self._inner_total_ns += duration_ns
        self._fold.apart_ns += duration_ns
        self._inner_ended_ns = began_ns + duration_ns

    def _start(self, now_ns: int) -> None:
        self._compiling.attach()
        self._log.span("startup", self._log_began_ns, now_ns - self._log_began_ns)
        self._window_began_ns = self._left_ns = now_ns
        self._inner_ns = 0

    def _end_window(self, end_ns: int, **known: Any) -> None:  # noqa: ANN401  # attributes
        window = {"index": self._num_windows, "throttle_ns": 0, "wait_ns": 0, **known}
        window |= self._fold.take()
        duration_ns = end_ns - self._window_began_ns
        parts = ("compute_ns", "input_ns", "throttle_ns", "wait_ns")
        rest_ns = duration_ns - self._inner_ns - sum(window[part] for part in parts)
        window["hooks_ns"] = max(0, rest_ns)
        self._log.span("window", self._window_began_ns, duration_ns, **window)
        self._compiling.attach()
        self._num_windows += 1
        self._window_began_ns, self._inner_ns = end_ns, 0

    def _tell(self, event: AveragingEvent, left_ns: int, waited_ns: int, transfer_ns: int) -> None:
        rank, plan = self._trainer.global_rank, event.plan
        own = event.reports[rank]
        interval_s = (left_ns - self._left_ns) / 1e9
        self._left_ns = left_ns
        self._log.instant(
            "average",
            index=event.index,
            epoch=event.epoch,
            global_step=event.global_step,
            wait_ns=waited_ns,
            transfer_ns=transfer_ns,
            bytes=event.exchanged_bytes,
        )
        self._log.counter(
            "rank",
            samples_per_s=round(own.samples / interval_s, 3) if interval_s > 0.0 else 0.0,
            share=round(plan.shares[rank], 4),
            anchor=plan.anchor,
            duty=round(1.0 - own.throttle_ms / own.compute_ms, 4) if own.compute_ms else 1.0,
        )
        if rank == 0:
            self._tell_decisions(event)

    def _tell_decisions(self, event: AveragingEvent) -> None:
        for kind, data in decisions_of(event, before=self._plan):
            if kind != "average":
                self._log.instant(kind, **data)
        self._plan = event.plan
        if event.is_epoch_complete:
            self._log.instant("epoch_end", epoch=event.epoch)
