"""How fast the governor makes room for others: simulated, and with `--real` on this machine."""

from __future__ import annotations

import argparse
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from cpu_group import CPU_CONTROLLER, can_limit, cpu_group
from lightning.pytorch import Callback, LightningModule, Trainer
from machine import describe_machine
from torch.utils.data import DataLoader, TensorDataset
from typing_extensions import override

from lightning_elche.callbacks.governor_hooks import HostHooks
from lightning_elche.coordination.host.gauges import gauges_of
from lightning_elche.coordination.host.governor import Governor, GovernorConfig
from lightning_elche.coordination.host.monitor import HostMonitor
from lightning_elche.coordination.host.probes import CpuProbe
from lightning_elche.coordination.host.targets import TargetConfig
from lightning_elche.coordination.host.thresholds import ThresholdConfig

GAINS = {
    "defaults (0.3, 0.01, 0)": GovernorConfig(),
    "0.3, 0.05, 0.1": GovernorConfig(ki=0.05, kd=0.1),
    "0.3, 0, 0": GovernorConfig(ki=0.0),
}
FOREIGN_POINTS, BAND_POINTS, NOISE_POINTS = 40.0, 8.0, 2.0
PERIODS = 300
SETTLE_S = 10.0
ACCOUNTS = Path("/sys/fs/cgroup/cpuacct")
MANY_SHARES = 20_000  # beside others on the same cores


def settled_after(config: GovernorConfig, seed: int) -> int:
    """Return after how many periods a simulated machine stays within the band.

    It is in balance at 70 % when others begin to use 40 points of it.
    """
    draw = random.Random(seed)
    own, foreign = draw.uniform(60.0, 100.0), draw.uniform(0.0, 20.0)
    target = TargetConfig().optimal_pct
    governor, inside_since = Governor(config), 0
    for period in range(-120, PERIODS):
        load = foreign + (FOREIGN_POINTS if period >= 0 else 0.0)
        used = own * governor.duty + load
        if period < 0 or abs(used - target) > BAND_POINTS:
            inside_since = period + 1
        noisy = used + draw.uniform(-NOISE_POINTS, NOISE_POINTS)
        governor.update(min(max(noisy, 0.0), 100.0))
    return inside_since


def simulate(seeds: int) -> None:
    """Print how long the gains take to settle."""
    print(
        f"Periods until {FOREIGN_POINTS:g} points of foreign load are made room for, {seeds} seeds"
    )
    print(f"{'kp, ki, kd':26}{'median':>8}{'p90':>6}{'most':>6}")
    for name, config in GAINS.items():
        periods = [settled_after(config, seed) for seed in range(seeds)]
        p90 = statistics.quantiles(periods, n=10)[-1]
        print(f"{name:26}{statistics.median(periods):8.0f}{p90:6.0f}{max(periods):6}")


def sampler(looks: int) -> None:
    """Print what it costs to watch the machine once a second."""
    gauges = gauges_of(
        ThresholdConfig.polite(), folder=Path.cwd, checkpoint_bytes=lambda: 1, gpu=None
    )
    monitor = HostMonitor(gauges, print)
    began = time.process_time()
    for _ in range(looks):
        monitor.look()
    each = (time.process_time() - began) / looks
    print(
        f"\nA look at the machine takes {1e6 * each:.0f} us of CPU, {each:.4%} of a core at 1 Hz."
    )


class Net(LightningModule):
    """Takes some milliseconds of one core for a step."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = torch.nn.Sequential(*(torch.nn.Linear(256, 256) for _ in range(6)))

    @override
    def training_step(self, batch: list[torch.Tensor]) -> torch.Tensor:
        return self.layers(batch[0]).square().mean()

    @override
    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=1e-5)


class Measured(Callback):
    """Trains for a time, and reads the CPU from when the governor has had time to settle."""

    def __init__(self, hooks: HostHooks, seconds: float) -> None:
        self.hooks, self.seconds = hooks, seconds
        self.percents: list[float] = []
        self.probe = CpuProbe()
        self.on_train_start, self.on_exception = hooks.on_train_start, hooks.on_exception

    @override
    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self.hooks.setup(trainer, pl_module, stage)
        self.began = self.looked = time.monotonic()
        self.on_train_batch_start = getattr(self.hooks, "on_train_batch_start", lambda *_: None)

    @override
    def on_train_batch_end(self, trainer: Trainer, *batch: object) -> None:
        end = getattr(self.hooks, "on_train_batch_end", None)
        if end is not None:
            end(trainer, *batch)
        now = time.monotonic()
        if now - self.looked >= 1.0:
            self.looked = now
            self.percents.append(self.probe.percent())
        if now - self.began >= SETTLE_S + self.seconds:
            trainer.should_stop = True

    @override
    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self.hooks.teardown()


def train(seconds: float, *, target: float, enabled: bool) -> float:
    """Return the mean use of the CPU in percent."""
    targets = TargetConfig(
        scale_up_below_pct=target - 20,
        min_pct=target - 10,
        optimal_pct=target,
        max_pct=target + 10,
        scale_down_above_pct=target + 20,
    )
    hooks = HostHooks(governor=GovernorConfig(enabled=enabled, signal="cpu"), targets=targets)
    measured = Measured(hooks, seconds)
    loader = DataLoader(TensorDataset(torch.randn(8192, 256)), batch_size=256)
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(
            accelerator="cpu",
            devices=1,
            max_epochs=-1,
            callbacks=[measured],
            logger=False,
            enable_checkpointing=False,
            enable_model_summary=False,
            enable_progress_bar=False,
            default_root_dir=folder,
        )
        trainer.fit(Net(), loader)
    return statistics.mean(measured.percents[int(SETTLE_S) :])


@contextmanager
def own_core() -> Iterator[None]:
    """Put this process where it has one core for itself, and what it uses of that is counted."""
    if not (can_limit() and ACCOUNTS.is_dir()):
        print("No control groups of version 1: the use of the whole machine is governed.")
        yield
        return
    with cpu_group(1.0) as procs:
        group = procs.parent
        (group / "cpu.shares").write_text(str(MANY_SHARES))
        accounts = ACCOUNTS / group.name
        accounts.mkdir()
        try:
            enter(group, accounts)
            yield
        finally:
            enter(CPU_CONTROLLER, ACCOUNTS)
            accounts.rmdir()


def enter(*groups: Path) -> None:
    """Move this process to groups."""
    for group in groups:
        (group / "cgroup.procs").write_text(str(os.getpid()))


BURN = """
import time
while True:
    end = time.perf_counter() + 0.03
    while time.perf_counter() < end:
        pass
    time.sleep(0.07)
"""


def real(seconds: float, target: float) -> None:
    """Train, and print the use of the CPU: off, on, and with foreign load."""
    torch.set_num_threads(1)
    print(f"\nUse of one core over {seconds:g} s; the target is {target:g} %")
    with own_core():
        off = train(5.0, target=target, enabled=False)
        print(f"governor off            {off:5.1f} %")
        on = train(seconds, target=target, enabled=True)
        print(f"governor on             {on:5.1f} %")
        burner = subprocess.Popen([sys.executable, "-c", BURN])  # in the same group
        try:
            shared = train(seconds, target=target, enabled=True)
        finally:
            burner.kill()
            burner.wait()
        print(f"with 30 points of load  {shared:5.1f} %")


def main() -> None:
    """Simulate, and measure what is asked for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=1000, help="simulated machines")
    parser.add_argument("--real", type=float, metavar="SECONDS", help="train for so long as well")
    parser.add_argument("--target", type=float, default=50.0, help="percent of the CPU for it")
    options = parser.parse_args()
    print(describe_machine())
    simulate(options.seeds)
    sampler(500)
    if options.real:
        real(options.real, options.target)


if __name__ == "__main__":
    main()
