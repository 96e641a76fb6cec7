"""Parses the command line of `elche`, dispatches, and sets the exit code."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from lightning_elche.cli import checkpoint, contract, coord, simulate, timeline
from lightning_elche.version import VERSION

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run `elche`.

    Returns:
        0 if all went well, 2 if the command could not be carried out; verbs that judge have more
        exit codes, which their help lists.
    """
    parser = argparse.ArgumentParser(
        prog="elche", description="Tools for training on devices of unequal speed."
    )
    parser.add_argument("--version", action="version", version=f"lightning-elche {VERSION}")
    verbs = parser.add_subparsers(metavar="VERB", required=True)
    checkpoint.add_to(verbs)
    contract.add_to(verbs)
    coord.add_to(verbs)
    simulate.add_to(verbs)
    timeline.add_to(verbs)
    options = parser.parse_args(arguments)
    try:
        return _print(options.run(options))
    except (ValueError, OSError, ModuleNotFoundError) as err:
        print(f"elche: {err}", file=sys.stderr)
        return 2


def _print(result: str | int) -> int:
    """Print what a verb has to say, and return its exit code if it has printed that itself."""
    if isinstance(result, int):
        return result
    print(result)
    return 0
