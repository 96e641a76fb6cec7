"""Two ranks of unequal speed: does ElCheStrategy reach the loss of DDP, and sooner?

All train the GPT of `examples/pretrain_stdlib.py` on the same samples, with the same batch size on
each rank, the same learning rate and the same schedule over the samples.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import unequal
from bench import joint_environment, worker_environment
from machine import describe_machine
from processes import Command, RankFailed, run_together
from quality_plot import draw_curves
from quality_report import DDP, Training, Trainings, render, render_events, summarise
from results import check_folders, machine_line

HERE = Path(__file__).resolve().parent
TIMEOUT_S = 600.0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark and return the exit code: 0 done, 1 if a rank failed."""
    options = parse_arguments(arguments)
    unequal.clean_up_on_sigterm()
    machine = describe_machine()
    print(headline(options, machine), flush=True)
    seeds: list[Trainings] = []
    try:
        with bench_for(options) as bench:
            for seed in range(options.seeds):
                seeds.append(run_seed(bench, options, seed))
                save(options, machine, seeds)  # now, as the next one takes minutes
    except RankFailed as err:
        print(f"error: {err}", file=sys.stderr)
        return 1
    print(f"\nMedian (lowest - highest) of {options.seeds}\n{render(summarise(seeds))}")
    return 0


SETTINGS = (
    *("quota", "seeds", "modes", "optimizer_state", "guard", "anchor", "outer"),
    *("epochs", "batches", "batch_size", "checks", "learning_rate"),
)


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Return the checked options of the command line."""
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").split("\n")[0],
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    unequal.add_quota_option(parser)
    add("--seeds", type=_at_least_one, default=3, help="trainings of every row; medians count")
    choices = ("alone", "elche")
    add("--modes", nargs="+", choices=choices, default=list(choices), help="what beside DDP")
    states = ("average", "keep")
    add("--optimizer-state", nargs="+", choices=states, default=["average"], help="of elche")
    add("--guard", nargs="+", choices=("on", "off"), default=["on"], help="of elche")
    add("--anchor", nargs="+", type=_at_least_one, default=[10], help="of elche, at the start")
    add("--outer", nargs="+", type=outer, default=["none"], help="LR,MOMENTUM, of elche")
    add("--epochs", type=_at_least_one, default=2, help="passes over the text")
    add("--batches", type=_at_least_one, default=1100, help="of an epoch, over both ranks")
    add("--batch-size", type=_at_least_one, default=8, help="samples in a batch of each rank")
    add("--checks", type=_at_least_one, default=5, help="validations in an epoch")
    add("--learning-rate", type=float, default=8e-3, help="peak of the schedule, for all rows")
    add("--json", type=Path, help="where to write all results")
    add("--png", type=Path, help="where to draw the curves")
    options = parser.parse_args(arguments)
    if options.batches % (2 * options.checks):
        parser.error(
            f"argument --batches: must be a multiple of twice --checks ({2 * options.checks}), so "
            f"that every epoch ends with a validation, got {options.batches}"
        )
    check_folders(parser, options, ("json", "png"))
    unequal.check_cores(parser)
    return options


def headline(options: argparse.Namespace, machine: dict[str, str | int]) -> str:
    """Return what is trained, how, and on what."""
    samples = options.epochs * options.batches * options.batch_size
    return (
        f"rank 1: {unequal.describe(options.quota)}; {samples:,} samples, "
        f"{options.batch_size} a batch on each rank, learning rate {options.learning_rate:g}\n"
        f"{machine_line(machine)}"
    )


def rows_of(options: argparse.Namespace) -> dict[str, tuple[str, ...]]:
    """Return the arguments of the worker for each row, by its name."""
    rows: dict[str, tuple[str, ...]] = {DDP: ("--mode", "ddp")}
    if "alone" in options.modes:
        rows["fast rank alone"] = ("--mode", "alone")
    if "elche" not in options.modes:
        return rows
    elche = product(options.optimizer_state, options.guard, options.anchor, options.outer)
    for state, guard, anchor, outer in elche:
        name = "elche" + (", keep" if state == "keep" else "")
        name += ", guard off" if guard == "off" else ""
        name += f", anchor {anchor}" if len(options.anchor) > 1 else ""
        name += f", outer {outer}" if outer != "none" else ""
        own = ("--optimizer-state", state, "--guard", guard, "--anchor", str(anchor))
        rows[name] = ("--mode", "elche", *own, "--outer", outer)
    return rows


@dataclass(frozen=True, kw_only=True)
class Bench:
    """Where the ranks run.

    Attributes:
        cores: The core of each rank.
        slow: Arguments of the worker that make rank 1 slow.
        folder: For logs and results.
    """

    cores: tuple[int, int]
    slow: tuple[str, ...]
    folder: Path

    def train(self, arguments: Sequence[str]) -> Training:
        """Run one training and return what rank 0 recorded."""
        result = self.folder / "result.json"
        result.unlink(missing_ok=True)
        worker = [sys.executable, str(HERE / "quality_worker.py"), *arguments]
        own = worker_environment()
        if "alone" in arguments:
            alone = [*worker, "--result", str(result)]
            commands = [Command(arguments=alone, environment=own, core=self.cores[0])]
        else:
            own |= joint_environment(None)
            commands = [
                Command(
                    arguments=[*worker, *more],
                    environment={**own, "RANK": str(rank), "LOCAL_RANK": str(rank)},
                    core=self.cores[rank],
                )
                for rank, more in enumerate((["--result", str(result)], self.slow))
            ]
        run_together(commands, timeout_s=TIMEOUT_S, folder=self.folder)
        training: Training = json.loads(result.read_text())
        return training


@contextlib.contextmanager
def bench_for(options: argparse.Namespace) -> Iterator[Bench]:
    """Make what slows the rank, and remove it in the end."""
    with contextlib.ExitStack() as stack:
        slow = stack.enter_context(unequal.slowed(options.quota))
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="elche-quality-")))
        yield Bench(cores=unequal.cores(), slow=slow, folder=folder)


def run_seed(bench: Bench, options: argparse.Namespace, seed: int) -> Trainings:
    """Train every row once, one after the other."""
    common = ["--seed", str(seed)]
    for name in ("epochs", "batches", "batch_size", "checks", "learning_rate"):
        common += [f"--{name.replace('_', '-')}", str(getattr(options, name))]
    trainings: dict[str, Training] = {}
    for row, own in rows_of(options).items():
        training = trainings[row] = bench.train([*own, *common])
        last, events = training["points"][-1], training["events"]
        line = f"  seed {seed}  {row:<23}loss {last['loss']:.4f} after {last['seconds']:.1f} s"
        print(f"{line}; {render_events(events)}" if events else line, flush=True)
    return trainings


def save(
    options: argparse.Namespace, machine: dict[str, str | int], seeds: Sequence[Trainings]
) -> None:
    """Write what was asked for, of the seeds so far."""
    if options.json:
        settings = {name: value for name, value in vars(options).items() if name in SETTINGS}
        result = {"machine": machine, "settings": settings, "summary": summarise(seeds)}
        options.json.write_text(json.dumps({**result, "seeds": seeds}, indent=1) + "\n")
    if options.png:
        draw_curves(seeds, options.png, title=headline(options, machine).splitlines()[0])


def outer(text: str) -> str:
    """Return `text` if it is "none", or the rate and the momentum of an outer optimizer."""
    if text != "none":
        lr, momentum = (float(part) for part in text.split(","))
        if not (lr > 0.0 and 0.0 <= momentum < 1.0):
            raise argparse.ArgumentTypeError(f"must be none or LR,MOMENTUM, got {text}")
    return text


def _at_least_one(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, got {text}")
    return value


if __name__ == "__main__":
    sys.exit(main())
