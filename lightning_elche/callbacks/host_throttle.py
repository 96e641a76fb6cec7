"""Lets a rank sleep between its steps while its machine is too busy."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import torch

from lightning_elche.callbacks.child_ranks import gather_objects
from lightning_elche.callbacks.host_gpu import gpu_signal
from lightning_elche.callbacks.run_events import emit
from lightning_elche.coordination.host.governor import Duty, Governor
from lightning_elche.coordination.host.probes import CpuProbe

if TYPE_CHECKING:
    from lightning.pytorch import Trainer

    from lightning_elche.coordination.host.governor import GovernorConfig
    from lightning_elche.coordination.host.targets import TargetConfig
    from lightning_elche.coordination.stopping.run_control import RunControl

__all__ = ["RankThrottle"]

SLICE_S = 0.1  # after which a stop is noticed
CLOSE_TIMEOUT_S = 5.0


class RankThrottle:
    """Reads the signal on a thread, and sleeps after batches as the governor says.

    Under ElCheStrategy the sleeps count as time of the steps, so that the rank gets fewer of them
    and the others more. Where ranks make equal steps, all wait for the one that sleeps most.

    Args:
        trainer: About to train; every rank makes this object at the same point.
        config: Of the governor.
        targets: What it steers to.
        control: Returns what ends the run; a sleep ends with it.
        is_on: Returns whether it governs now; otherwise nobody sleeps.
        signal: Returns the signal in percent. Default: what `config` names.

    Raises:
        ValueError: On all ranks, if one of them has no GPU to take a signal from.
    """

    def __init__(
        self,
        trainer: Trainer,
        config: GovernorConfig,
        targets: TargetConfig,
        *,
        control: Callable[[], RunControl | None],
        is_on: Callable[[], bool],
        signal: Callable[[], float] | None = None,
    ) -> None:
        self._strategy, self._device = trainer.strategy, trainer.strategy.root_device
        self._signal = signal or signal_of(trainer, config.signal)
        self._name, self._period_s = config.signal, config.period_s
        self._control, self._is_on = control, is_on
        self.governor, self._duty = Governor(config, targets), Duty()
        self._percent: float | None = None
        self._is_unknown = False
        self._began_s = 0.0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="elche-governor", daemon=True)
        self.slept_s = 0.0
        self._thread.start()

    # In the training thread

    def on_train_batch_start(self, *_: object) -> None:
        """Mark the begin of a step."""
        self._began_s = time.perf_counter()

    def on_train_batch_end(self, *_: object) -> None:
        """Sleep if the machine is too busy."""
        duty = self.governor.duty
        if duty < 1.0 and self._device.type == "cuda":
            torch.cuda.synchronize(self._device)  # it would work on in the sleep
        sleep_s = self._duty.sleep_s(time.perf_counter() - self._began_s, duty)
        if sleep_s > 0.0:
            self._sleep(sleep_s)

    def _sleep(self, seconds: float) -> None:
        control = self._control()
        began_s = time.perf_counter()
        left_s = seconds
        while left_s > 0.0 and not (control is not None and control.stop):
            self._over.wait(min(left_s, SLICE_S))
            left_s = seconds - (time.perf_counter() - began_s)
        slept_s = time.perf_counter() - began_s
        self.slept_s += slept_s
        if getattr(self._strategy, "is_running", False):
            self._strategy.run.rounds.window.throttle_ms += 1000.0 * slept_s  # type: ignore[attr-defined]  # ElCheStrategy

    # Beside it

    def close(self) -> None:
        """Sleep and read no more."""
        self._over.set()
        self._thread.join(CLOSE_TIMEOUT_S)
        self.governor.reset()

    def status(self) -> dict[str, object]:
        """Return the duty and what it follows from; quick, from any thread."""
        percent = self._percent
        return {
            "signal": self._name,
            "percent": percent,
            "duty": self.governor.duty,
            "limit": self.governor.limit,
            "slept_s": self.slept_s,
            "action": None if percent is None else self.governor.action(percent),
            "in_target_range": percent is not None and self.governor.targets.is_in_range(percent),
        }

    def _run(self) -> None:
        while not self._over.wait(self._period_s):
            self.look()

    def look(self) -> None:
        """Read the signal once, and set the duty; an unknown signal leaves it as it is."""
        try:
            percent = self._percent = self._signal()
        except Exception as err:  # whatever a driver may raise
            self._percent = None
            if not self._is_unknown:
                self._is_unknown = True
                reason = f"{type(err).__name__}: {err}"
                emit("alert", message=f"The signal {self._name!r} cannot be read: {reason}")
            return
        self._is_unknown = False
        if self._is_on():
            self.governor.update(percent)
        else:
            self.governor.reset()


def signal_of(trainer: Trainer, name: str) -> Callable[[], float]:
    """Return what reads the signal of a governor; every rank calls this at the same point.

    Raises:
        ValueError: On all ranks, if it is one of a GPU, and one of them has none.
    """
    if name == "cpu":
        return CpuProbe().percent
    strategy = trainer.strategy
    read = gpu_signal(strategy.root_device, name)
    own = None if read is not None else strategy.root_device.type
    others = gather_objects(strategy, own, world_size=trainer.world_size)
    lacking = {rank: device for rank, device in enumerate(others) if device is not None}
    if read is None or lacking:
        rank, device = next(iter(lacking.items()))
        raise ValueError(
            f"`signal` must be 'cpu' where ranks train on {device!r}, got {name!r}, which is of a "
            f"GPU. Rank {rank} has none."
        )
    return read
