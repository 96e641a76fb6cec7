"""Parses the command line of `elche`, dispatches, and sets the exit code."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from lightning_elche.cli import checkpoint, contract, coord, simulate, timeline
from lightning_elche.cli.arguments import Parser
from lightning_elche.cli.streams import discard_unwritable, told, write_result
from lightning_elche.version import VERSION

__all__ = ["main"]

USAGE, INTERRUPTED, UNREAD = 2, 130, 141  # the last two as shells count SIGINT and SIGPIPE


def main(arguments: Sequence[str] | None = None) -> int:
    """Run `elche`.

    Returns:
        0 if all went well, 2 if the command could not be carried out, 130 after Ctrl-C, 141 if
        nobody reads the result any more, as after `| head`; verbs that judge have more exit codes,
        which their help lists.
    """
    try:
        return _run(arguments)
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        discard_unwritable()
        return UNREAD
    except (ValueError, OSError, ModuleNotFoundError) as err:
        print(f"elche: {told(err)}", file=sys.stderr)
        discard_unwritable()
        return USAGE


def _run(arguments: Sequence[str] | None) -> int:
    try:
        options = _parser().parse_args(arguments)
        return _print(options.run(options))
    finally:
        if sys.stdout is not None:
            sys.stdout.flush()  # help, too; later an error could not be told any more


def _parser() -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = Parser(
        prog="elche", description="Tools for training on devices of unequal speed."
    )
    parser.add_argument("--version", action="version", version=f"lightning-elche {VERSION}")
    verbs = parser.add_subparsers(metavar="VERB", required=True)
    checkpoint.add_to(verbs)
    contract.add_to(verbs)
    coord.add_to(verbs)
    simulate.add_to(verbs)
    timeline.add_to(verbs)
    return parser


def _print(result: str | int) -> int:
    """Print what a verb has to say, and return its exit code if it has printed that itself."""
    if isinstance(result, int):
        return result
    write_result(result)
    return 0
