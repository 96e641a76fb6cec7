"""What Coordination and CadenceMonitor add to a step: their hooks, and all that they do.

Hooks are measured in one fit, by taking the callbacks out of it for a few batches and putting them
back, so that a busy machine is as busy with them as without. What stands around the methods of the
strategy and what threads do is in the second table only, which compares fits.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from gate_overhead import Empty
from lightning.pytorch import Callback, Trainer, seed_everything
from overhead import EpochTime, Tiny, quiet_options
from torch import ones
from torch.utils.data import DataLoader, TensorDataset
from typing_extensions import override

from lightning_elche import CadenceMonitor, Coordination

BLOCK = 20  # batches


class Switch(Callback):
    """Lets one set of callbacks after another take part in training, and times what that takes.

    Args:
        sets: The callbacks, by name; all of them are set up.
    """

    def __init__(self, sets: dict[str, list[Callback]]) -> None:
        self.sets = sets
        self.seconds: dict[str, list[float]] = {name: [] for name in sets}
        self._name = ""
        self._began = 0.0

    @override
    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        step = trainer.global_step
        if step % BLOCK:
            return
        now = time.thread_time()  # without what other processes and threads do
        if self._name:
            self.seconds[self._name].append(now - self._began)
        names = list(self.sets)
        self._name = names[step // BLOCK % len(names)]
        callbacks = [self, *self.sets[self._name]]
        trainer.callbacks = callbacks  # type: ignore[attr-defined]  # set by a connector
        self._began = time.thread_time()

    @override
    def on_train_end(self, trainer: Trainer, *_: Any) -> None:
        everything = {id(one): one for own in self.sets.values() for one in own}
        trainer.callbacks = list(everything.values())  # type: ignore[attr-defined]  # to be closed


def fit(steps: int, folder: Path, callbacks: Sequence[Callback], epochs: int) -> None:
    """Train on one device."""
    seed_everything(0, verbose=False)
    trainer = Trainer(
        accelerator="cpu",
        devices=1,
        strategy="elche",
        max_epochs=epochs,
        callbacks=list(callbacks),
        default_root_dir=folder,
        logger=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        enable_progress_bar=False,
    )
    trainer.fit(Tiny(), DataLoader(TensorDataset(ones(steps, 1))))


def hooks_us(steps: int, folder: Path) -> dict[str, float]:
    """Return what the hooks of each set add to a step in microseconds, the median."""
    coordination, monitor = Coordination(), CadenceMonitor()
    sets: dict[str, list[Callback]] = {
        "none": [],
        "empty callback": [Empty()],
        "Coordination()": [coordination],
        "CadenceMonitor()": [monitor],
        "both": [coordination, monitor],
    }
    switch = Switch(sets)
    fit(len(sets) * steps, folder, [switch, *sets["empty callback"], *sets["both"]], epochs=1)
    plain = switch.seconds["none"]
    return {
        name: 1e6
        / BLOCK
        * statistics.median(own - base for own, base in zip(taken, plain, strict=False))
        for name, taken in switch.seconds.items()
    }


def step_us(steps: int, folder: Path, callbacks: Sequence[Callback]) -> float:
    """Return how long a step takes in microseconds, the first epoch aside."""
    clock = EpochTime()
    fit(steps, folder, [clock, *callbacks], epochs=3)
    return 1e6 * statistics.median(clock.seconds[1:]) / steps


FITS: dict[str, Callable[[], list[Callback]]] = {
    "none": list,
    "empty callback": lambda: [Empty()],
    "Coordination()": lambda: [Coordination()],
    "CadenceMonitor()": lambda: [CadenceMonitor()],
    "both": lambda: [Coordination(), CadenceMonitor()],
}


def main() -> None:
    """Measure in turns and print medians."""
    options = quiet_options((__doc__ or "").split("\n")[0])
    times: dict[str, list[float]] = {name: [] for name in FITS}
    with tempfile.TemporaryDirectory() as root:
        hooks = hooks_us(options.steps, Path(root) / "hooks")
        for repeat in range(options.repeats):
            for number, (name, callbacks) in enumerate(FITS.items()):
                folder = Path(root) / f"{repeat}-{number}"
                times[name].append(step_us(options.steps, folder, callbacks()))
    print(f"{'':18}{'hooks, us':>10}{'step, us':>10}{'added':>9}{'ratio':>7}")
    base = statistics.median(times["none"])
    for name, taken in times.items():
        added = [own - plain for own, plain in zip(taken, times["none"], strict=True)]
        median = statistics.median(taken)
        print(
            f"{name:18}{hooks[name]:10.1f}{median:10.0f}{statistics.median(added):+9.1f}"
            f"{median / base:7.2f}"
        )


if __name__ == "__main__":
    main()
