"""What PCGrad costs: aggregation, a whole step beside TorchJD, memory, accuracy, hooks."""

from __future__ import annotations

import argparse
import logging
import warnings

import torch
from machine import describe_machine
from pcgrad_parts import BATCH, aggregation_ms, gram_error, hooks_us, peak_rows, step_ms, steps_of


def print_aggregation(options: argparse.Namespace) -> None:
    """Print the times and ratios of the aggregation, and its error."""
    times = aggregation_ms(options.tasks, options.numel, options.repeats)
    print(f"\n{'aggregation':38}{'ms':>8}{'x floor':>12}")
    for name, taken in times.items():
        print(f"{name:38}{taken:8.1f}{taken / times['floor']:12.2f}")
    error = gram_error(options.tasks, options.error_numel)
    print(f"error of a cosine, {options.error_numel / 1e6:g} M elements: {error:.1e}")


def print_steps(options: argparse.Namespace) -> None:
    """Print the times and ratios of whole steps."""
    times = step_ms(options.tasks, options.numel, options.repeats)
    base = times.get("TorchJD, defaults")
    print(f"\n{'whole step':38}{'ms':>8}{'x TorchJD':>12}")
    for name, taken in times.items():
        print(f"{name:38}{taken:8.1f}" + (f"{taken / base:12.2f}" if base else f"{'-':>12}"))
    if base is None:
        print("TorchJD is not installed: pip install torchjd")


def print_memory(options: argparse.Namespace) -> None:
    """Print how much memory each training takes."""
    print(f"\n{'peak memory':38}{'x parameters':>20}")
    for name in steps_of(options.tasks, options.numel):
        print(f"{name:38}{peak_rows(name, options.tasks, options.numel):20.1f}")


def print_hooks(options: argparse.Namespace) -> None:
    """Print what the hooks add to a step."""
    torch.set_num_threads(1)
    print(f"\n{'hooks, beside an empty callback':38}{'us a step':>20}")
    for name, taken in hooks_us(options.steps, options.repeats).items():
        print(f"{name:38}{taken:20.0f}")


PARTS = {
    "aggregation": print_aggregation,
    "steps": print_steps,
    "memory": print_memory,
    "hooks": print_hooks,
}


def main() -> None:
    """Measure, and print medians and ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add("--tasks", type=int, default=8, help="number of losses")
    add("--numel", type=int, default=10_000_000, help="parameters of the trunk, about")
    add("--error-numel", type=int, default=4_000_000, help="elements for the error")
    add("--repeats", type=int, default=5, help="how often to measure; medians")
    add("--threads", type=int, default=torch.get_num_threads(), help="threads of PyTorch")
    add("--steps", type=int, default=1000, help="steps of an epoch, for the hooks")
    add("--parts", nargs="+", choices=PARTS, default=list(PARTS), help="what to measure")
    options = parser.parse_args()
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.simplefilter("ignore")  # advice of Lightning about loggers and workers
    torch.set_num_threads(options.threads)
    print(", ".join(f"{name} {value}" for name, value in describe_machine().items()))
    print(
        f"{options.tasks} tasks, {options.numel / 1e6:g} M parameters, batch {BATCH}, "
        f"{options.threads} threads, {options.repeats} repeats"
    )
    for part in options.parts:
        PARTS[part](options)


if __name__ == "__main__":
    main()
