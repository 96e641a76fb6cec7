"""A strategy under which a batch that does not fit into memory can be skipped on one rank."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from typing_extensions import override

from lightning_elche.loops.skipping import BatchSkipped, install_skipping
from lightning_elche.strategies.oom_guard import OomGuard, Skip
from lightning_elche.strategies.refusals import reason_not_to_skip
from lightning_elche.strategies.running import RunningStrategy

if TYPE_CHECKING:
    from torch import Tensor

    from lightning_elche.typing import FaultSink

__all__ = ["SkippingStrategy"]


class SkippingStrategy(RunningStrategy):
    """Skips such batches while somebody wants to hear of them; else they raise.

    Args:
        **options: As of `RunningStrategy`.

    Attributes:
        idle_events: Averaging events that this rank still waits for without training.
    """

    idle_events = 0
    _oom_guard: OomGuard | None = None

    def attach_faults(self, sink: FaultSink, *, redeal: bool = False) -> str:
        """Skip such batches of this rank in the present `fit`, and tell `sink`.

        Args:
            sink: Hears of them.
            redeal: Deal them once more, to another rank that still claims batches of the epoch;
                every rank says the same.

        Returns:
            Why that is not possible; nothing if it is.
        """
        module = self.lightning_module
        assert module is not None
        reason = reason_not_to_skip(module, is_lockstep=not self.has_local_gradients)
        if not reason:
            on_skip = partial(self._skip, sink)
            self._oom_guard = OomGuard(
                module, self.root_device, on_skip=on_skip, on_learnt=sink.learnt
            )
            install_skipping(module.trainer, self._oom_guard)
            if self._run is not None:
                self._run.dealer.redeals = redeal
        return reason

    def detach_faults(self) -> None:
        """Skip no more batches, and train on."""
        self.idle_events = 0
        if self._oom_guard is not None:
            self._oom_guard = None
            assert self.lightning_module is not None
            install_skipping(self.lightning_module.trainer, None)

    def stay_idle(self, events: int) -> None:
        """Train nothing until a number of averaging events are over, and adopt their averages.

        Nobody waits for this rank meanwhile, and what it has not claimed goes to the others.

        Args:
            events: How many.
        """
        if self._oom_guard is not None:
            self.run.rounds.window.skip(self._oom_guard.drop_gradients())
        self.idle_events = events

    def _skip(self, sink: FaultSink, skip: Skip) -> None:
        if self._run is not None:
            self._run.rounds.window.skip(skip.batches)
            if self._run.has_pool:
                self._run.dealer.offer(skip.batches)
        sink.skipped(skip.part, skip.batches)

    @override
    def training_step(self, *args: Any, **kwargs: Any) -> Any:
        guard = self._oom_guard
        if guard is None:
            return super().training_step(*args, **kwargs)
        guard.begin_forward()
        try:
            return super().training_step(*args, **kwargs)
        except Exception as err:
            if not guard.skips(err):
                raise
        raise BatchSkipped("forward")  # here, or it would keep the frames that hold the memory

    @override
    def backward(self, *args: Any, **kwargs: Any) -> Tensor:
        guard = self._oom_guard
        if guard is None:
            return super().backward(*args, **kwargs)
        try:
            return super().backward(*args, **kwargs)
        except Exception as err:
            if not guard.skips(err):
                raise
        raise BatchSkipped("backward")
