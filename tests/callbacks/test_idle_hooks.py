"""What a step spares where callbacks have nothing to do."""

from __future__ import annotations

import pickle
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from lightning.pytorch import Callback
from lightning.pytorch.profilers import SimpleProfiler
from typing_extensions import override

from lightning_elche import CadenceMonitor, Coordination, PartitionCheckpoint, Rollback
from lightning_elche.callbacks.idle_hooks import STEP_HOOKS, leave_out_idle_hooks
from tests.callbacks.faulty import Hungry, fit_hungry, numbered


@pytest.mark.parametrize("kind", [CadenceMonitor, Coordination, PartitionCheckpoint, Rollback])
def test_lightning_enters_only_hooks_that_do_something(kind: type[Any], tmp_path: Path) -> None:
    """Of those of a step; and all that do are entered."""
    callback = kind(tmp_path) if kind is PartitionCheckpoint else kind()
    profiler = SimpleProfiler()
    options: dict[str, Any] = {"default_root_dir": tmp_path, "enable_checkpointing": True}
    fit_hungry(Hungry(), numbered(4), callback, profiler=profiler, **options)
    actions = profiler.recorded_durations
    entered = {hook for hook in STEP_HOOKS if f"[Callback]{callback.state_key}.{hook}" in actions}
    assert entered == {hook for hook in STEP_HOOKS if hook in _overridden(kind)}
    assert entered < set(STEP_HOOKS)


def _overridden(kind: type[Callback]) -> set[str]:
    return {name for one in kind.__mro__ if one is not Callback for name in vars(one)}


class Counts(Rollback):
    """Has a hook that `Rollback` inherits."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: Counter[str] = Counter()

    @override
    def on_after_backward(self, *args: Any) -> None:
        super().on_after_backward(*args)
        self.calls["on_after_backward"] += 1


def test_hooks_of_subclasses_are_called() -> None:
    """With `super()` within them."""
    counts = Counts()
    fit_hungry(Hungry(), numbered(20), counts)
    assert counts.calls == {"on_after_backward": 20}


def test_callback_can_be_pickled_and_left_out_again() -> None:
    """As launchers do, and several fits."""
    callback = CadenceMonitor()
    leave_out_idle_hooks(callback)
    leave_out_idle_hooks(callback)
    copy = pickle.loads(pickle.dumps(callback))
    assert copy.on_before_backward is None
    assert callable(copy.on_train_batch_end)
