"""What a rank sleeps while its machine is too busy."""

from __future__ import annotations

import os
import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from lightning_elche import ElCheStrategy
from lightning_elche.callbacks import governor_hooks, host_throttle
from lightning_elche.callbacks.governor_hooks import HostHooks
from lightning_elche.callbacks.host_throttle import RankThrottle
from lightning_elche.control.events import AveragingEvent
from lightning_elche.control.requests import StopCause
from lightning_elche.coordination.host.governor import GovernorConfig
from lightning_elche.coordination.host.targets import TargetConfig
from lightning_elche.coordination.stopping.run_control import RunControl
from lightning_elche.testing import run_ranks
from tests.callbacks.hosted import CPU, Events, Hosted, alone
from tests.coordination.calls import eventually
from tests.ranks import fit


def throttle_of(signal: Any, control: RunControl | None = None, **options: Any) -> RankThrottle:
    return RankThrottle(
        alone(),
        options.pop("config", CPU),
        TargetConfig(),
        control=lambda: control,
        is_on=options.pop("is_on", lambda: True),
        signal=signal,
    )


def step(throttle: RankThrottle) -> float:
    """Make a step of ten milliseconds, and return the seconds slept after it."""
    before = throttle.slept_s
    throttle.on_train_batch_start()
    throttle._began_s -= 0.01
    throttle.on_train_batch_end()
    return throttle.slept_s - before


def test_rank_sleeps_while_its_machine_is_too_busy() -> None:
    """By its duty, which falls to the least there is."""
    throttle = throttle_of(lambda: 100.0)
    assert eventually(lambda: throttle.governor.duty == 0.05)
    assert step(throttle) >= 0.18
    throttle.close()


def test_rank_does_not_sleep_while_its_machine_is_not_too_busy() -> None:
    """Not for a moment."""
    throttle = throttle_of(lambda: 50.0)
    assert eventually(lambda: throttle.status()["percent"] == 50.0)
    assert step(throttle) == 0.0
    assert throttle.status()["action"] == "scale_up"
    throttle.close()


def test_sleep_ends_with_the_run() -> None:
    """A stop is not slept through: this one would last a second."""
    control = RunControl()
    throttle = throttle_of(lambda: 100.0, control)
    assert eventually(lambda: throttle.governor.duty == 0.05)
    control.request_stop(StopCause.API)
    throttle._began_s = time.perf_counter() - 10.0
    throttle.on_train_batch_end()
    assert throttle.slept_s < 0.5
    throttle.close()


def test_throttle_is_off_outside_of_peak_hours() -> None:
    """However busy the machine is."""
    throttle = throttle_of(lambda: 100.0, is_on=lambda: False)
    throttle.look()
    assert throttle.governor.duty == 1.0
    throttle.close()


def test_signal_that_fails_is_told_once_and_leaves_the_duty(events: Events) -> None:
    """Nobody is throttled by what nobody knows."""

    def read() -> float:
        raise OSError("gone")

    throttle = throttle_of(read, config=replace(CPU, period_s=100.0))
    for _ in range(3):
        throttle.look()
    alerts = [data["message"] for kind, data in events if kind == "alert"]
    assert alerts == ["The signal 'cpu' cannot be read: OSError: gone"]
    assert throttle.status()["percent"] is None
    assert throttle.governor.duty == 1.0
    throttle.close()


def test_signal_of_a_gpu_needs_one() -> None:
    """The message names the one to use."""
    with pytest.raises(ValueError, match=r"`signal` must be 'cpu' where .*'cpu', got 'power'"):
        throttle_of(None, config=GovernorConfig(enabled=True, signal="power"))


def fit_throttled(folder: Path) -> Any:
    """Train on two ranks, the first of which is told that its machine is busy.

    Before that, fail to, since only the first is told that it has a GPU.
    """
    if int(os.environ["RANK"]) == 0:
        host_throttle.gpu_signal = lambda *_: lambda: 0.0
    hosted = Hosted(HostHooks(governor=GovernorConfig(enabled=True, signal="power")))
    with pytest.raises(ValueError, match="`signal` must be 'cpu'") as lacking:
        fit(2, callbacks=[hosted], default_root_dir=folder)
    if int(os.environ["RANK"]) == 0:
        governor_hooks.RankThrottle = partial(RankThrottle, signal=lambda: 100.0)
    else:
        governor_hooks.RankThrottle = partial(RankThrottle, signal=lambda: 0.0)
    hooks, told = HostHooks(governor=CPU), list[AveragingEvent]()
    hosted = Hosted(hooks)
    hosted.on_average_end = lambda event: (hooks.on_average_end(event), told.append(event))
    fit(
        2,
        size=300,
        delays_ms=(3.0,),
        callbacks=[hosted],
        default_root_dir=folder,
        strategy=ElCheStrategy(timeout_s=30.0, policy="async"),
    )
    throttled = [sum(event.reports[rank].throttle_ms for event in told) for rank in range(2)]
    is_timed = hooks.window_times.count == len(told)
    return throttled, told[-1].plan.shares, is_timed, str(lacking.value)


def test_share_of_a_rank_that_sleeps_goes_to_the_others(tmp_path: Path) -> None:
    """Its sleeps are told to all, and nobody waits for them; a rank without signal ends all."""
    for result in run_ranks(fit_throttled, world_size=2, folder=tmp_path):
        throttled, shares, is_timed, lacking = result.value
        assert throttled[0] > 100.0
        assert throttled[1] == 0.0
        assert shares[0] < 0.35
        assert is_timed
        assert lacking.endswith("got 'power', which is of a GPU. Rank 1 has none.")
