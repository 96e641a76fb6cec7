"""Pretrain a small GPT on Python's own standard library, with ranks of unequal speed.

Measures how fast each rank is alone, trains with all of them together, and says how close the
joint run came to the sum of the speeds. Takes about three minutes on two cores.
"""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing
import os
import platform
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from char_gpt import CharGPT
from epoch_report import EpochReport, bits
from lightning.pytorch import Trainer, seed_everything
from lightning.pytorch.callbacks import Callback, TQDMProgressBar
from lightning.pytorch.strategies import Strategy
from quiet_lightning import quiet_lightning
from slow_rank import SlowDown
from solo_speed import solo_samples_per_s
from stdlib_text import VOCABULARY, StdlibText

from lightning_elche import CadenceMonitor, ElCheStrategy, GateTrain, exit_on_violation

PICTURE = "swimlane.png"
SUMMARY = "summary.json"
DEFAULT_RATE = 8e-3
TARGET = 1.6  # nats per character; training ends there, from the third epoch on


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the example."""
    options = parse_arguments(arguments)
    quiet_lightning()
    torch.set_num_threads(1)  # every rank stands for a device of its own
    # The Trainer starts this script once more for each further rank, with LOCAL_RANK set.
    is_launching = "LOCAL_RANK" not in os.environ
    if is_launching:
        print(headline(options, cores=os.cpu_count() or 1))
        options.out.mkdir(parents=True, exist_ok=True)
        solo = measure_ranks_alone(options)
        print(f"Together: strategy {options.strategy}, ranks: {options.devices}", flush=True)
    gate = make_gate(options)
    with exit_on_violation():
        report = train(options, gate)
    if is_launching:
        summary = summarise(report, solo)
        (options.out / SUMMARY).write_text(json.dumps(asdict(summary), indent=2) + "\n")
        print(render(summary, picture=options.out / PICTURE, run_dir=gate.run_dir))


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Return the checked options of the command line."""
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").split("\n")[0],
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--epochs", type=at_least_one, default=3, help="passes over the text")
    parser.add_argument("--devices", type=at_least_one, default=2, help="ranks, a core each")
    parser.add_argument("--factor", type=slowdown, default=4.0, help="how much slower rank 1 is")
    parser.add_argument(
        "--strategy", choices=("elche", "ddp"), default="elche", help="how to train"
    )
    parser.add_argument(
        "--chars", type=enough_chars, default=1_500_000, help="characters to train on"
    )
    parser.add_argument(
        "--learning-rate", type=positive, default=DEFAULT_RATE, help="peak of the learning rate"
    )
    parser.add_argument(
        "--contract", type=Path, help="rules of the run, else those of `elche contract new`"
    )
    parser.add_argument(
        "--solo-seconds", type=duration_s, default=12.0, help="time to measure each rank alone"
    )
    parser.add_argument(
        "--out", type=Path, default=Path("runs/pretrain_stdlib"), help="folder for the results"
    )
    options = parser.parse_args(arguments)
    if options.out.exists() and not options.out.is_dir():
        parser.error(f"argument --out: must be a folder, got the file {options.out}")
    return options


def headline(options: argparse.Namespace, *, cores: int) -> str:
    """Return what is about to happen, and a note if the machine is too small for it."""
    size = sum(parameter.numel() for parameter in CharGPT().parameters())
    text = (
        f"A GPT of {size:,} parameters learns {options.chars:,} characters of the standard library "
        f"of Python {platform.python_version()}."
    )
    if options.devices > cores:
        text += f"\nNote: {options.devices} ranks share {cores} cores; their sum is out of reach."
    return text


def rank_factors(*, devices: int, factor: float) -> list[float]:
    """Return how many times slower each rank is: only rank 1 is slowed down."""
    return [factor if rank == 1 else 1.0 for rank in range(devices)]


def measure_ranks_alone(options: argparse.Namespace) -> list[float]:
    """Return the samples per second of each rank alone, each measured in a process of its own."""
    print(f"Alone: {options.solo_seconds:g} s each under a plain single-device Trainer", flush=True)
    speeds: dict[float, float] = {}
    factors = rank_factors(devices=options.devices, factor=options.factor)
    for rank, slower in enumerate(factors):
        if slower not in speeds:  # ranks of equal speed are measured once
            speeds[slower] = in_fresh_process(options.chars, slower, options.solo_seconds)
        note = f"   (slowed {slower:g} times)" if slower > 1.0 else ""
        print(f"  rank {rank}   {speeds[slower]:8,.0f} samples/s{note}", flush=True)
    return [speeds[slower] for slower in factors]


def in_fresh_process(chars: int, slower: float, seconds: float) -> float:
    """Measure one rank alone, leaving nothing behind in this process."""
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(max_workers=1, mp_context=spawn) as pool:
        return pool.submit(measure_alone, chars, slower, seconds).result()


def measure_alone(chars: int, slower: float, seconds: float) -> float:
    """Return the samples per second of one rank alone."""
    seed_everything(0, verbose=False)
    return solo_samples_per_s(CharGPT(), StdlibText(chars=chars), factor=slower, seconds=seconds)


def make_gate(options: argparse.Namespace) -> GateTrain:
    """Return what watches over the training: it learns from scratch, and at a rate of its own."""
    return GateTrain(
        options.contract,
        run_dir=options.out / time.strftime("run-%Y%m%d-%H%M%S"),
        mode="from_scratch",
        vocab_size=VOCABULARY,
        overrides={"lr_max": DEFAULT_RATE, "target_val_loss": TARGET},
        clip_norm=1.0,
    )


def train(options: argparse.Namespace, gate: GateTrain) -> EpochReport:
    """Train on all ranks together; runs in every rank's process."""
    seed_everything(0, verbose=False)
    data = StdlibText(chars=options.chars)
    data.setup()
    report = EpochReport(len(data.train))
    callbacks: list[Callback] = [SlowDown(rank=1, factor=options.factor), report, gate]
    strategy: str | Strategy = "ddp"
    if options.strategy == "elche":
        strategy = ElCheStrategy()
        callbacks.append(CadenceMonitor(report=options.out / PICTURE))
    show_bar = sys.stdout.isatty()
    if show_bar:
        callbacks.append(TQDMProgressBar(refresh_rate=20, leave=False))
    trainer = Trainer(
        accelerator="cpu",
        devices=options.devices,
        strategy=strategy,
        max_epochs=options.epochs,
        callbacks=callbacks,
        num_sanity_val_steps=0,
        logger=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        enable_progress_bar=show_bar,
    )
    trainer.fit(CharGPT(learning_rate=options.learning_rate), data)
    return report


@dataclass(frozen=True, kw_only=True)
class Summary:
    """The result of the run.

    Attributes:
        val_loss: Validation loss at the end, in nats per character.
        bits_per_char: The same in bits.
        share: Each rank's part of the samples.
        samples_per_s: Speed of all ranks together.
        solo_samples_per_s: Speed of each rank alone.
        efficiency: Together over the sum of the solo speeds.
        fast_alone: The fastest rank alone over the sum of the solo speeds.
    """

    val_loss: float
    bits_per_char: float
    share: tuple[float, ...]
    samples_per_s: float
    solo_samples_per_s: tuple[float, ...]
    efficiency: float
    fast_alone: float


def summarise(report: EpochReport, solo: Sequence[float]) -> Summary:
    """Return the result of a run whose ranks reach the speeds `solo` alone."""
    val_loss = report.epochs[-1].val_loss
    return Summary(
        val_loss=val_loss,
        bits_per_char=bits(val_loss),
        share=report.share,
        samples_per_s=report.samples_per_s,
        solo_samples_per_s=tuple(solo),
        efficiency=report.samples_per_s / sum(solo),
        fast_alone=max(solo) / sum(solo),
    )


def render(summary: Summary, *, picture: Path, run_dir: Path | None) -> str:
    """Return the result as a few lines."""
    shares = ", ".join(f"rank {rank} {part:.1%}" for rank, part in enumerate(summary.share))
    total = sum(summary.solo_samples_per_s)
    lines = [
        "Result",
        f"  validation loss    {summary.val_loss:.3f} ({summary.bits_per_char:.2f} bits/char)",
        f"  share of the data  {shares}",
        f"  together           {summary.samples_per_s:,.0f} samples/s",
        f"  sum of the ranks   {total:,.0f} samples/s",
        f"  efficiency         {summary.efficiency:.1%} of the sum",
        f"  fastest alone      {summary.fast_alone:.1%} of the sum",
    ]
    if picture.exists():
        lines.append(f"  picture            {picture}")
    lines.append(f"  proof              elche contract check {run_dir}")
    return "\n".join(lines)


def at_least_one(text: str) -> int:
    """Parse a whole number of at least one."""
    return int(at_least(float(int(text)), 1.0))


def enough_chars(text: str) -> int:
    """Parse a number of characters that is enough for a batch."""
    return int(at_least(float(int(text)), 1024.0))


def slowdown(text: str) -> float:
    """Parse a finite number of at least one."""
    return at_least(float(text), 1.0)


def positive(text: str) -> float:
    """Parse a finite number above zero."""
    return at_least(float(text), sys.float_info.min)


def duration_s(text: str) -> float:
    """Parse a finite number of seconds, at least one."""
    return at_least(float(text), 1.0)


def at_least(value: float, low: float) -> float:
    """Return `value` if it is finite and not below `low`."""
    if not (math.isfinite(value) and value >= low):
        raise argparse.ArgumentTypeError(f"must be at least {low:g}, got {value:g}")
    return value


if __name__ == "__main__":
    main()
