"""`elche checkpoint`: checkpoints verified, compared and cleaned up from the command line."""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Callable
from typing import TYPE_CHECKING

from lightning_elche.cli.arguments import parse_path
from lightning_elche.cli.checkpoint_output import FORMATS, emit, render
from lightning_elche.cli.outcome import Outcome
from lightning_elche.exceptions import ElCheError

if TYPE_CHECKING:
    Verbs = argparse._SubParsersAction[argparse.ArgumentParser]

__all__ = ["add_to"]

EXIT_CODES = """\
exit codes, the first that applies:
  2  wrong usage
  3  something is missing or cannot be read
  1  {bad}
  4  {other}
  0  all is well
"""
NEWER = "the format is that of another release"
ANY_VERB = "see the help of the verb"
UNREADABLE = 3


def add_to(parsers: Verbs) -> None:
    """Add the verb and its own verbs to the parser of `elche`."""
    checkpoint = parsers.add_parser(
        "checkpoint",
        help="verify, compare and clean up partition checkpoints",
        description="Checkpoints of PartitionCheckpoint: what is in them, and whether it is right.",
        epilog=EXIT_CODES.format(bad=ANY_VERB, other=NEWER),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    own = checkpoint.add_subparsers(metavar="VERB", required=True)
    for add in (_add_verify, _add_ls, _add_show, _add_diff, _add_replay, _add_gc, _add_export):
        add(own)


def _run(options: argparse.Namespace) -> int:
    # Only now, because help needs neither numpy nor the readers of checkpoints.
    module = importlib.import_module(f"lightning_elche.cli.checkpoint_{options.verb}")
    verb: Callable[[argparse.Namespace], Outcome] = getattr(module, options.verb)
    try:
        outcome = verb(options)
        text = render(outcome, options)
    except (ElCheError, OSError, MemoryError, RecursionError) as err:
        outcome = _failed(err, options)
        text = render(outcome, options)
    emit(text, outcome, options)
    return outcome.exit_code


def _failed(err: Exception, options: argparse.Namespace) -> Outcome:
    from lightning_elche.cli.checkpoint_places import exit_code_of, explained

    given = (getattr(options, name, None) for name in ("path", "path_a", "path_b"))
    path = " ".join(path for path in given if path is not None)
    if isinstance(err, (MemoryError, RecursionError)):
        what = "a group of tensors is" if isinstance(err, MemoryError) else "a tree is nested"
        message = f"{path}: {what} too large for this machine"
        return Outcome.error(type(err).__name__, message, path, UNREADABLE)
    code = exit_code_of(err, options.bad_source)
    return Outcome.error(type(err).__name__, explained(err), path, code)


def _add(
    own: Verbs, name: str, text: str, *, bad: str, other: str = NEWER, bad_source: int = 1
) -> argparse.ArgumentParser:
    """Add a verb; `bad_source` is the exit code if what it reads is not right."""
    parser = own.add_parser(
        name,
        help=text,
        description=f"{text[0].upper()}{text[1:]}.",
        epilog=EXIT_CODES.format(bad=bad, other=other),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("-o", "--output", metavar="FILE", help="write the result here")
    parser.add_argument(
        *("-q", "--quiet"), action="store_true", help="show only what is wrong or was asked for"
    )
    parser.add_argument("--format", choices=FORMATS, default="text", help="of the result")
    parser.set_defaults(run=_run, verb=name, bad_source=bad_source)
    return parser


def _add_verify(own: Verbs) -> None:
    parser = _add(
        own, "verify", "check one checkpoint, or each one of a root", bad="one is not right"
    )
    parser.add_argument("path", type=parse_path, metavar="PATH", help="a checkpoint, or a root")
    depth = parser.add_mutually_exclusive_group()
    depth.add_argument(
        "--shallow",
        dest="depth",
        action="store_const",
        const="shallow",
        help="only manifests, names and lengths",
    )
    depth.add_argument(
        "--deep",
        dest="depth",
        action="store_const",
        const="deep",
        help="also the fingerprint of each tensor and the tree",
    )
    parser.set_defaults(depth="full")


def _add_ls(own: Verbs) -> None:
    parser = _add(own, "ls", "list the checkpoints of a root", bad="a manifest is not right")
    parser.add_argument("path", type=parse_path, metavar="ROOT", help="the folder of checkpoints")
    parser.add_argument(
        "--all", action="store_true", help="also archive, quarantine and temporary folders"
    )


def _add_show(own: Verbs) -> None:
    parser = _add(own, "show", "tell what is in a checkpoint", bad="its manifest is not right")
    _add_checkpoint(parser)
    parser.add_argument("--tensors", action="store_true", help="also each tensor")
    parser.add_argument("--tree", action="store_true", help="also the state that is no tensor")


def _add_diff(own: Verbs) -> None:
    parser = _add(
        own, "diff", "tell where two checkpoints differ", bad="they differ", bad_source=UNREADABLE
    )
    for name in ("a", "b"):
        parser.add_argument(
            f"path_{name}", type=parse_path, metavar=name.upper(), help="a checkpoint, or a root"
        )


def _add_replay(own: Verbs) -> None:
    parser = _add(
        own,
        "replay",
        "tell where the fingerprints of a run differ from those of another",
        bad="they diverge",
        other=f"ACTUAL ends early, or the environments differ, or {NEWER}",
        bad_source=UNREADABLE,
    )
    for name, text in (("a", "EXPECTED"), ("b", "ACTUAL")):
        parser.add_argument(
            f"path_{name}", type=parse_path, metavar=text, help="a record (jsonl), or a root"
        )


def _add_gc(own: Verbs) -> None:
    parser = _add(
        own, "gc", "remove what dead processes have left in a root", bad="a deletion failed"
    )
    parser.add_argument("path", type=parse_path, metavar="ROOT", help="the folder of checkpoints")
    parser.add_argument(
        "--keep",
        type=_positive,
        metavar="N",
        help="also remove checkpoints but the newest N, labelled ones and those with NaN",
    )
    parser.add_argument(
        "--monitor", metavar="METRIC", help="with --keep: keep those with the best METRIC, too"
    )
    parser.add_argument(
        "--mode",
        choices=("min", "max"),
        help="with --monitor: whether less is better or more (default: min)",
    )
    parser.add_argument(
        "--keep-best", type=_positive, metavar="K", help="with --monitor: how many (default: 1)"
    )
    parser.add_argument("--apply", action="store_true", help="remove, and not only say what")


def _add_export(own: Verbs) -> None:
    parser = _add(
        own, "export", "write a verified checkpoint in another format", bad="it is not right"
    )
    _add_checkpoint(parser)
    parser.add_argument(
        "--to",
        required=True,
        choices=("ckpt", "dcp", "oms"),
        help="a Lightning file or torch.distributed.checkpoint, which need torch, or the digests "
        "of all files as an unsigned in-toto Statement of OpenSSF Model Signing",
    )
    parser.add_argument(
        "out", type=parse_path, metavar="OUT", help="a new file or, for dcp, folder"
    )


def _add_checkpoint(parser: argparse.ArgumentParser) -> None:
    text = "a checkpoint, or a root, of which the newest good one is taken"
    parser.add_argument("path", type=parse_path, metavar="CKPT", help=text)


def _positive(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and int(text) >= 1):
        raise argparse.ArgumentTypeError(f"must be a whole number of at least 1, got {text!r}")
    return int(text)
