"""Two ranks of unequal speed: what each does alone, under DDP and under ElCheStrategy."""

from __future__ import annotations

import argparse
import contextlib
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import report
import unequal
from bench import Bench, Run
from cpu_group import can_limit
from drift import Drift
from machine import describe_machine
from peers import PEERS, missing_package
from plans import Pace, plans_of
from processes import RankFailed
from rate_limit import can_rate_limit, rate_limited_hosts
from results import Result, add_output_options, check_output_options, machine_line, write

DEFAULT_MODES = ("raw", report.DDP, report.ELCHE)
WORKLOADS = ("cnn", "mlp")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark and return the exit code: 0 done, 1 if a rank failed."""
    options = parse_arguments(arguments)
    unequal.clean_up_on_sigterm()
    try:
        result = measure(options)
    except RankFailed as err:
        print(f"error: {err}", file=sys.stderr)
        return 1
    write([result], options)
    return 0


def measure(options: argparse.Namespace) -> Result:
    """Measure every row as often as the options say, print the table, and return all."""
    machine = describe_machine()
    title = title_of(options)
    print(f"{title}\n{machine_line(machine)}", flush=True)
    quotas = (options.quota, *options.drift)
    with bench_for(options) as bench:
        pace = bench.pace(seconds=options.seconds, quotas=quotas)
        repeats = [
            run_once(bench, options, pace=pace, number=number)
            for number in range(1, options.repeats + 1)
        ]
    speeds = [{name: run["samples_per_s"] for name, run in runs.items()} for runs in repeats]
    summary = report.summarise(speeds)
    print(f"\nMedians of {options.repeats}\n{report.render(summary)}", flush=True)
    settings = {name: value for name, value in vars(options).items() if not isinstance(value, Path)}
    return Result(title=title, machine=machine, settings=settings, summary=summary, repeats=repeats)


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Return the checked options of the command line."""
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").split("\n")[0],
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    unequal.add_quota_option(parser)
    drift = "further quotas, in the midst of a row"
    add("--drift", type=unequal.quota, nargs="+", default=[], help=drift)
    add("--workload", choices=WORKLOADS, default="cnn", help="what to train")
    add("--link-mbit", type=_positive, help="join the ranks by a link of so many Mbit/s")
    add("--repeats", type=int, default=3, help="how often to measure every row; medians count")
    add("--seconds", type=_positive, default=20.0, help="about how long a row trains")
    add(
        "--modes",
        nargs="+",
        choices=("raw", report.DDP, *PEERS, *report.OURS),
        default=list(DEFAULT_MODES),
        help="what to measure beside the speed of each rank alone",
    )
    add_output_options(parser)
    options = parser.parse_args(arguments)
    if options.repeats < 1:
        parser.error(f"argument --repeats: must be at least 1, got {options.repeats}")
    check_output_options(parser, options)
    unequal.check_cores(parser)
    for mode in options.modes:
        if package := missing_package(mode):
            parser.error(f"argument --modes: {mode} needs {package}; run: pip install {package}")
    if options.drift and (options.quota == 1.0 or not can_limit()):
        parser.error("argument --drift: needs a control group, and a --quota below 1")
    if options.link_mbit and not can_rate_limit():
        parser.error("argument --link-mbit: needs root, and the programs ip, tc and nsenter")
    return options


def title_of(options: argparse.Namespace) -> str:
    """Return what is measured, and how."""
    then = "".join(f", then {quota:.1%}" for quota in options.drift)
    link = f", link {options.link_mbit:g} Mbit/s" if options.link_mbit else ""
    return (
        f"{options.workload}; rank 1: {unequal.describe(options.quota)}{then}{link}; "
        f"{options.repeats} x about {options.seconds:g} s a row"
    )


@contextlib.contextmanager
def bench_for(options: argparse.Namespace) -> Iterator[Bench]:
    """Make what slows the rank and the link, and remove it in the end."""
    with contextlib.ExitStack() as stack:
        slow = stack.enter_context(unequal.slowed(options.quota))
        hosts = None
        if options.link_mbit:
            hosts = stack.enter_context(rate_limited_hosts(options.link_mbit))
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="elche-hetero-")))
        yield Bench(
            workload=options.workload,
            link_mbit=options.link_mbit,
            cores=unequal.cores(),
            slow=slow,
            hosts=hosts,
            folder=folder,
            timeout_s=120.0 + 10.0 * options.seconds,
        )


def drift_for(bench: Bench, options: argparse.Namespace) -> Drift | None:
    """Return how the slow rank's speed changes, if it does."""
    if not options.drift:
        return None
    _, procs = bench.slow
    quotas = (options.quota, *options.drift)
    return Drift(group=Path(procs).parent, quotas=quotas, seconds=options.seconds)


def run_once(
    bench: Bench, options: argparse.Namespace, *, pace: Pace, number: int
) -> dict[str, Run]:
    """Measure every row once, one after the other, and return the results by run."""
    results: dict[str, Run] = {}
    drift = drift_for(bench, options)
    for plan in plans_of(options.modes, pace):
        result = drift.measure(bench, plan, results) if drift else bench.measure(plan)
        results[plan.name] = result
        speed = f"{result['samples_per_s']:8,.0f} samples/s"
        print(f"  {number}/{options.repeats}  {plan.name:<14}{speed}", flush=True)
    return results


def _positive(text: str) -> float:
    value = float(text)
    if not 0.0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"must be a positive number, got {text}")
    return value


if __name__ == "__main__":
    sys.exit(main())
