"""Two equal ranks joined by a slow link: Lightning's DDP and ElCheStrategy, for each workload."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from hetero import WORKLOADS, measure, parse_arguments
from processes import RankFailed
from results import add_output_options, check_output_options, write
from unequal import clean_up_on_sigterm


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark and return the exit code: 0 done, 1 if a rank failed."""
    options, rows = parse_link_arguments(arguments)
    clean_up_on_sigterm()
    try:
        results = [measure(row) for row in rows]
    except RankFailed as err:
        print(f"error: {err}", file=sys.stderr)
        return 1
    write(results, options)
    return 0


def parse_link_arguments(
    arguments: Sequence[str] | None = None,
) -> tuple[argparse.Namespace, list[argparse.Namespace]]:
    """Return the options of the command line, and those of `hetero.py` for each workload."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    add = parser.add_argument
    add("--mbit", default="100", help="Mbit/s of the link, each way")
    add("--workloads", nargs="+", choices=WORKLOADS, default=list(WORKLOADS), help="what to train")
    add("--modes", nargs="+", default=["ddp", "elche"], help="rows, as `hetero.py` names them")
    add("--repeats", default="3", help="how often to measure every row; medians count")
    add("--seconds", default="20", help="about how long a row trains")
    add_output_options(parser)
    options = parser.parse_args(arguments)
    check_output_options(parser, options)
    shared = ["--quota", "1", "--link-mbit", options.mbit, "--modes", *options.modes]
    shared += ["--repeats", options.repeats, "--seconds", options.seconds]
    rows = [parse_arguments([*shared, "--workload", name]) for name in options.workloads]
    return options, rows


if __name__ == "__main__":
    sys.exit(main())
