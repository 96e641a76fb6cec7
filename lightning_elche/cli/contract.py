"""`elche contract`: contracts and runs judged from the command line."""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from lightning_elche.cli.arguments import parse_path
from lightning_elche.cli.contract_output import FORMATS, Outcome, emit
from lightning_elche.cli.streams import told
from lightning_elche.contracts.reports.text import QUIET, VERBOSE
from lightning_elche.contracts.rules.catalog import GROUPS

if TYPE_CHECKING:
    Verbs = argparse._SubParsersAction[argparse.ArgumentParser]

__all__ = ["add_to"]

EXIT_CODES = """\
exit codes, the first that applies:
  2  wrong usage, or a contract that is not valid
  3  a file or the folder of the run is missing or cannot be read
  1  a gate fails, or there is a finding of level error
  4  a gate could not be judged, or nothing was checked
  0  all is well
"""
MODULES = {
    **dict.fromkeys(("validate", "diff", "schema", "new"), "contract_files"),
    **dict.fromkeys(("check", "compare"), "contract_runs"),
    "explain": "contract_explain",
}
SUBJECTS = ("run_dir", "run_a", "run_b", "old", "new")


def add_to(parsers: Verbs) -> None:
    """Add the verb and its own verbs to the parser of `elche`."""
    contract = parsers.add_parser(
        "contract",
        help="check contracts, and runs against them",
        description="Rules of a healthy run: check the files they are written in, and runs.",
        epilog=EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    own = contract.add_subparsers(metavar="VERB", required=True)
    for add in (_add_validate, _add_check, _add_compare, _add_diff, _add_explain, _add_printers):
        add(own)


def _run(options: argparse.Namespace) -> int:
    # Only now, because `elche --help` and `elche simulate` need neither YAML nor JSON Schema.
    module = importlib.import_module(f"lightning_elche.cli.{MODULES[options.verb]}")
    verb: Callable[[argparse.Namespace], Outcome] = getattr(module, options.verb)
    try:
        outcome = verb(options)
    except OSError as err:
        print(f"elche: {told(err)}", file=sys.stderr)
        return _unread(err, options)
    emit(outcome, options)
    return outcome.exit_code


def _unread(err: OSError, options: argparse.Namespace) -> int:
    """Also tell programs what cannot be read, in the format that they have asked for."""
    from lightning_elche.cli.contract_files import UNREADABLE, unread

    if getattr(options, "format", "text") != "text":
        given = (getattr(options, name, None) for name in SUBJECTS)
        subject = " ".join(path for path in given if path is not None)
        emit(unread(options.verb, subject, err), options)
    return UNREADABLE


def _add(own: Verbs, name: str, text: str) -> argparse.ArgumentParser:
    parser = own.add_parser(
        name,
        help=text,
        description=f"{text[0].upper()}{text[1:]}.",
        epilog=EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("-o", "--output", metavar="FILE", help="write the result here")
    parser.add_argument(
        *("-q", "--quiet"),
        dest="verbosity",
        action="store_const",
        const=QUIET,
        help="show only what is wrong",
    )
    parser.add_argument(
        *("-v", "--verbose"),
        dest="verbosity",
        action="store_const",
        const=VERBOSE,
        help="also show notes, gates that are not declared, and what to do about findings",
    )
    parser.set_defaults(run=_run, verb=name, verbosity=0)
    return parser


def _add_format(parser: argparse.ArgumentParser, formats: Sequence[str] = FORMATS) -> None:
    parser.add_argument("--format", choices=formats, default="text", help="of the result")


def _add_validate(own: Verbs) -> None:
    parser = _add(own, "validate", "check that contracts are valid")
    parser.add_argument(
        "files", type=parse_path, nargs="+", metavar="FILE", help="a contract in YAML"
    )
    parser.add_argument("--strict", action="store_true", help="take warnings for errors")
    _add_format(parser)


def _add_check(own: Verbs) -> None:
    parser = _add(own, "check", "judge a run by the files it has written")
    parser.add_argument("run_dir", type=parse_path, metavar="RUN_DIR", help="the folder of the run")
    parser.add_argument(
        "--contract", metavar="FILE", help="judge by this one, not by the copy of the run"
    )
    parser.add_argument(
        "--gate",
        nargs="+",
        action="extend",
        metavar="ID",
        help=f"judge these gates only; an id, or a group: {', '.join(GROUPS)}",
    )
    parser.add_argument("--live", action="store_true", help="the run is still being written")
    parser.add_argument(
        "--regime", choices=("finetune", "from_scratch"), help="of a run without run.json"
    )
    parser.add_argument("--vocab-size", type=_positive, help="of a run without run.json")
    parser.add_argument("--device", help="of a run without run.json: cpu, cuda, ...")
    parser.add_argument(
        "--no-deep", action="store_true", help="do not open Lightning's checkpoints: needs torch"
    )
    _add_leniency(parser)
    parser.add_argument(
        "--max-findings",
        type=_positive,
        default=20,
        help="most findings of a rule to show (default: 20)",
    )
    _add_format(parser)


def _add_leniency(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--allow-indeterminate",
        action="store_true",
        help="exit with 0 although a gate could not be judged",
    )
    parser.add_argument("--strict", action="store_true", help="take warnings for errors")


def _add_compare(own: Verbs) -> None:
    parser = _add(own, "compare", "judge whether a run repeats another")
    parser.add_argument("run_a", type=parse_path, metavar="RUN_A", help="the folder of a run")
    parser.add_argument("run_b", type=parse_path, metavar="RUN_B", help="that of the other")
    _add_leniency(parser)
    _add_format(parser)


def _add_diff(own: Verbs) -> None:
    parser = _add(own, "diff", "tell which rules of a contract became weaker")
    parser.add_argument("old", type=parse_path, metavar="OLD", help="the contract before")
    parser.add_argument("new", type=parse_path, metavar="NEW", help="the contract after")
    parser.add_argument(
        "--allow-weaker", action="store_true", help="exit with 0 although a rule became weaker"
    )
    _add_format(parser)


def _add_explain(own: Verbs) -> None:
    parser = _add(own, "explain", "tell what a rule asks for")
    parser.add_argument("rule", nargs="?", metavar="ID", help="such as EV-PPL; all without")
    _add_format(parser, ("text", "json"))


def _add_printers(own: Verbs) -> None:
    schema = _add(own, "schema", "print the JSON Schema of contracts")
    schema.add_argument(
        "--dialect", choices=("elche", "open"), default="elche", help="of the contract"
    )
    _add(own, "new", "print the default contract, to begin with")


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number of at least 1, got {text!r}")
    return int(text)
