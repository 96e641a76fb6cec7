"""A fit and its machine: what is watched, throttled, timed and remembered."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import ModelCheckpoint

from lightning_elche import CadenceConfig, ElCheStrategy
from lightning_elche.callbacks import governor_hooks, host_throttle
from lightning_elche.callbacks.governor_hooks import HostHooks
from lightning_elche.callbacks.host_durations import fingerprint_of
from lightning_elche.callbacks.host_gpu import gpu_signal, nvml_signal
from lightning_elche.callbacks.host_link import LinkAdvice
from lightning_elche.callbacks.host_peak import PeakGuard
from lightning_elche.callbacks.host_throttle import RankThrottle
from lightning_elche.callbacks.host_watch import HostWatch
from lightning_elche.callbacks.run_events import subscribe
from lightning_elche.control.controller import Controller
from lightning_elche.control.events import AveragingEvent
from lightning_elche.control.guard import GuardAction
from lightning_elche.control.reports import Report
from lightning_elche.control.requests import StopCause
from lightning_elche.coordination.bandwidth.budget import BandwidthConfig
from lightning_elche.coordination.host.governor import GovernorConfig
from lightning_elche.coordination.host.levels import Level
from lightning_elche.coordination.host.monitor import HostAlert
from lightning_elche.coordination.host.targets import TargetConfig
from lightning_elche.coordination.host.thresholds import ThresholdConfig
from lightning_elche.coordination.schedule.schedule import ScheduleConfig
from lightning_elche.coordination.stopping.run_control import RunControl
from lightning_elche.testing import run_ranks
from tests.callbacks.hosted import Hosted
from tests.coordination.calls import eventually
from tests.ranks import Recorder, fit, make_trainer

Events = list[tuple[str, dict[str, object]]]
CPU = GovernorConfig(enabled=True, signal="cpu", period_s=0.005)


@pytest.fixture
def events() -> Iterator[Events]:
    told: Events = []
    forget = subscribe(lambda kind, data: told.append((kind, data)))
    yield told
    forget()


def alone() -> Trainer:
    return make_trainer(1, strategy="auto")


# A whole fit


class FailsAtLast(Recorder):
    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        if batch_idx == 3:
            raise ArithmeticError("a spoiled batch")
        return super().training_step(batch, batch_idx)


def fit_hosted(folder: Path, hooks: HostHooks, **options: Any) -> Trainer:
    saver = ModelCheckpoint(dirpath=folder / "checkpoints", save_top_k=-1, every_n_epochs=1)
    trainer, _ = fit(
        1,
        size=20,
        val_size=4,
        callbacks=[Hosted(hooks), saver],
        enable_checkpointing=True,
        default_root_dir=folder,
        strategy="auto",
        **options,
    )
    return trainer


def durations(folder: Path) -> list[dict[str, object]]:
    lines = (folder / "elche" / "durations.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def test_fit_is_timed_and_its_checkpoints_are(tmp_path: Path, events: Events) -> None:
    """Without governor and deadline there is no hook of a batch that could cost anything."""
    hooks = HostHooks()
    fit_hosted(tmp_path, hooks, max_epochs=2)
    saved = [data for kind, data in events if kind == "checkpoint_saved"]
    sizes = [path.stat().st_size for path in sorted((tmp_path / "checkpoints").iterdir())]
    assert not hasattr(hooks, "on_train_batch_start")
    assert not hasattr(hooks, "on_train_batch_end")
    assert sorted(data["bytes"] for data in saved) == sorted(sizes)
    assert (hooks.checkpoint_times.count, len(sizes)) == (2, 2)
    (line,) = durations(tmp_path)
    assert (line["kind"], line["is_success"]) == ("train", True)
    assert json.loads(json.dumps(hooks.status()))["run"]["progress"] == 1.0


def test_deadline_counts_steps_where_nobody_averages(tmp_path: Path) -> None:
    """Stop comes before the end by one and a half checkpoints and steps, and the margin."""
    end = time.time() + 1000.0
    hooks = HostHooks(environment={"SLURM_JOB_END_TIME": str(int(end)), "SLURM_JOB_ID": "7"})
    due_s, reason = hooks.deadline()
    assert due_s is not None
    assert due_s - time.monotonic() == pytest.approx(1000.0 - 1.5 * 2.0 - 5.0, abs=2.0)
    assert reason == "the end of SLURM job 7"
    fit_hosted(tmp_path, hooks)
    later_s, _ = hooks.deadline()
    assert later_s is not None
    assert (hooks.window_times.count, hooks.checkpoint_times.count) == (5, 1)
    measured_s = hooks.checkpoint_times.p95 + hooks.window_times.p95
    assert later_s - due_s == pytest.approx(1.5 * (2.0 - measured_s), abs=0.5)


def test_fit_that_fails_is_no_success(tmp_path: Path) -> None:
    """It does not count when the next one is estimated; nothing goes on after it."""
    hooks = HostHooks(governor=CPU)
    with pytest.raises(ArithmeticError):
        fit_hosted(tmp_path, hooks, model=FailsAtLast())
    (line,) = durations(tmp_path)
    hooks.teardown()
    assert line["is_success"] is False
    assert not [
        one for one in threading.enumerate() if one.name in ("elche-host", "elche-governor")
    ]


def test_model_that_is_another_one_has_another_fingerprint() -> None:
    """As has one that trains for longer."""
    prints = [
        fingerprint_of(make_trainer(1, strategy="auto", max_epochs=epochs), model)
        for epochs, model in ((1, Recorder()), (2, Recorder()), (1, FailsAtLast()), (1, Recorder()))
    ]
    assert len(set(prints)) == 3
    assert prints[0] == prints[3]


# The governor


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


# Thresholds


def watch_of(on_critical: str, control: RunControl | None) -> HostWatch:
    config = ThresholdConfig(on_critical=on_critical)  # type: ignore[arg-type]  # one of three
    saves = SimpleNamespace(folder=Path("/"), last_bytes=0)
    return HostWatch(alone(), config, saves, control)  # type: ignore[arg-type]


def alert(gauge: str, level: Level) -> HostAlert:
    return HostAlert(gauge=gauge, level=level, value=96.0)


def test_too_little_memory_pauses_until_there_is_enough() -> None:
    """Of memory and disk."""
    control = RunControl()
    watch = watch_of("pause", control)
    wanted = []
    for gauge, level in (
        ("memory_pct", Level.CRITICAL),
        ("disk_free_bytes", Level.CRITICAL),
        ("memory_pct", Level.WARN),
        ("disk_free_bytes", Level.OK),
    ):
        watch.take(alert(gauge, level))
        wanted.append(control.pause)
    assert wanted == [True, True, True, False]


def test_pause_ends_with_the_watch() -> None:
    """Otherwise nobody would end it."""
    control = RunControl()
    watch = watch_of("pause", control)
    watch.take(alert("memory_pct", Level.CRITICAL))
    watch.close()
    assert not control.pause


def test_too_little_disk_stops_the_run(events: Events) -> None:
    """And is told, with the number."""
    control = RunControl()
    watch_of("stop", control).take(alert("disk_free_bytes", Level.CRITICAL))
    assert control.stop is StopCause.THRESHOLD
    assert control.reason == "`disk_free_bytes` is CRITICAL, at 96"
    assert events[-1][0] == "threshold"
    assert events[-1][1]["level"] == "CRITICAL"


@pytest.mark.parametrize(
    ("on_critical", "gauge", "level"),
    [
        ("alert", "memory_pct", Level.CRITICAL),
        ("stop", "memory_pct", Level.WARN),
        ("stop", "gpu_pct", Level.CRITICAL),  # training is meant to keep it busy
        ("pause", "load_per_cpu", Level.CRITICAL),
    ],
)
def test_all_else_is_told_only(on_critical: str, gauge: str, level: Level) -> None:
    """Warnings, and how busy the machine is."""
    control = RunControl()
    watch_of(on_critical, control).take(alert(gauge, level))
    assert control.stop is StopCause.NONE
    assert not control.pause


def test_action_that_nobody_can_take_is_told_at_the_begin() -> None:
    """As with a strategy whose ranks nothing stops or pauses."""
    with pytest.warns(UserWarning, match="`on_critical` is 'stop', which takes `ElCheStrategy`"):
        watch_of("stop", None)


# Peak hours

HOUR_S = 3600.0
PEAK = ["14:00", "22:00", "UTC"]


class Day:
    """A clock that sleeps."""

    def __init__(self, hour: float) -> None:
        self.now = hour * HOUR_S

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def begin(policy: str, *, hour: float, hours: float, stops: bool = False) -> float:
    """Begin a run, and return the hour at which it goes on."""
    day = Day(hour)
    config = ScheduleConfig(peak=PEAK, peak_policy=policy)  # type: ignore[arg-type]  # one of three
    guard = PeakGuard(config, now=day, sleep=day.sleep)
    guard.begin(alone(), hours * HOUR_S, stops=lambda: stops)
    return day.now / HOUR_S


@pytest.mark.parametrize(
    ("hour", "hours", "until"), [(10.0, 4.0, 10.0), (10.0, 5.0, 22.0), (21.0, 1.0, 22.0)]
)
def test_run_waits_if_it_would_last_into_peak_hours(
    hour: float, hours: float, until: float
) -> None:
    """Until they are over."""
    assert begin("wait", hour=hour, hours=hours) == pytest.approx(until)


def test_wait_ends_with_the_run() -> None:
    """A stop is not waited through."""
    assert begin("wait", hour=15.0, hours=1.0, stops=True) == 15.0


def test_run_that_lasts_into_peak_hours_is_warned(events: Events) -> None:
    """And begins at once; the event says when they end."""
    with pytest.warns(UserWarning, match="may take 5 hours and last into peak hours"):
        assert begin("warn", hour=10.0, hours=5.0) == 10.0
    assert events[-1][1]["until"] == 22 * HOUR_S


def test_run_that_is_throttled_then_begins_at_once() -> None:
    """The governor is on in these hours alone."""
    assert begin("throttle", hour=15.0, hours=1.0) == 15.0


# The link


def event_of(controller: Controller, *, exchanged_bytes: int = 1_000_000) -> AveragingEvent:
    reports = tuple(Report(batches=10, compute_ms=100.0, weight=1.0) for _ in range(2))
    controller.report(reports)
    return AveragingEvent(
        index=0,
        epoch=0,
        global_step=20,
        epoch_batches=20,
        reports=reports,
        plan=controller.plan,
        action=GuardAction.STABLE,
        wait_ms=0.0,
        transfer_ms=1.0,
        exchanged_bytes=exchanged_bytes,
    )


def advise(link_mbps: float | None, *, exchanged_bytes: int = 1_000_000) -> tuple[int, Any]:
    """Show an event with windows of 0.1 s, and return the anchor after it, and the floor."""
    controller = Controller(2)
    rounds = SimpleNamespace(controller=controller)
    strategy: Any = SimpleNamespace(run=SimpleNamespace(rounds=rounds))
    advice = LinkAdvice(strategy, BandwidthConfig(link_mbps=link_mbps))
    for _ in range(3):
        advice.on_average_end(event_of(controller, exchanged_bytes=exchanged_bytes))
    return controller.plan.anchor, advice.floor_s


def test_windows_are_lengthened_once_to_what_the_link_allows() -> None:
    """A megabyte over 100 Mbit/s every 0.8 s: 80 steps of 10 ms; then the cadence shortens them."""
    with pytest.warns(UserWarning, match="should meet every 0.8 s") as told:
        anchor, floor_s = advise(100.0)
    assert (floor_s, len(told)) == (pytest.approx(0.8), 1)
    assert 75 <= anchor <= 80


def test_windows_are_never_lengthened_beyond_their_limit() -> None:
    """However slow the link is; each later event shortens them by one step."""
    with pytest.warns(UserWarning, match="should meet every 80 s"):
        anchor, _ = advise(1.0)
    assert CadenceConfig().max_anchor - 2 <= anchor <= CadenceConfig().max_anchor


@pytest.mark.parametrize(("link_mbps", "num_bytes"), [(None, 10**9), (100_000.0, 1), (10.0, 0)])
def test_windows_are_left_alone_where_the_link_is_fast_or_unknown(
    link_mbps: float | None, num_bytes: int
) -> None:
    """Or nothing was exchanged."""
    anchor, _ = advise(link_mbps, exchanged_bytes=num_bytes)
    assert anchor == Controller(2).plan.anchor


# GPUs


class Nvml:
    """A GPU at 75 degrees, that slows down at 100, and takes 150 of 300 watts."""

    NVML_TEMPERATURE_GPU, NVML_TEMPERATURE_THRESHOLD_SLOWDOWN = 0, 1

    def nvmlInit(self) -> None: ...

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> str:
        return uuid

    def nvmlDeviceGetUtilizationRates(self, gpu: str) -> Any:
        return SimpleNamespace(gpu=42)

    def nvmlDeviceGetTemperature(self, gpu: str, sensor: int) -> int:
        return 75 + sensor

    def nvmlDeviceGetTemperatureThreshold(self, gpu: str, kind: int) -> int:
        return 99 + kind

    def nvmlDeviceGetEnforcedPowerLimit(self, gpu: str) -> int:
        return 300_000

    def nvmlDeviceGetPowerUsage(self, gpu: str) -> int:
        return 150_000


@pytest.mark.parametrize(
    ("signal", "percent"), [("gpu", 42.0), ("temperature", 75.0), ("power", 50.0)]
)
def test_signals_of_a_gpu_are_percentages(signal: str, percent: float) -> None:
    """Of its limits."""
    assert nvml_signal(Nvml(), "GPU-1", signal)() == percent


def test_device_without_driver_has_no_signal() -> None:
    """As the CPU."""
    assert gpu_signal(torch.device("cpu"), "gpu") is None


@pytest.mark.cuda
@pytest.mark.parametrize("signal", ["gpu", "temperature", "power"])
def test_signals_of_a_real_gpu_can_be_read(signal: str) -> None:
    """They are percentages."""
    pytest.importorskip("pynvml")
    read = gpu_signal(torch.device("cuda", 0), signal)
    assert read is not None
    assert 0.0 <= read() <= 110.0
