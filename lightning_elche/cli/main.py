"""Parses the command line of `elche`, dispatches, and sets the exit code."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from lightning_elche.cli import simulate
from lightning_elche.version import VERSION

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run `elche`.

    Returns:
        0 if all went well, 2 if the command could not be carried out.
    """
    parser = argparse.ArgumentParser(
        prog="elche", description="Tools for training on devices of unequal speed."
    )
    parser.add_argument("--version", action="version", version=f"lightning-elche {VERSION}")
    verbs = parser.add_subparsers(metavar="VERB", required=True)
    simulate.add_to(verbs)
    options = parser.parse_args(arguments)
    try:
        print(options.run(options))
    except (ValueError, OSError, ModuleNotFoundError) as err:
        print(f"elche: {err}", file=sys.stderr)
        return 2
    return 0
