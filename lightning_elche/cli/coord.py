"""`elche coord`: runs watched and told what to do, and the registry of a machine."""

from __future__ import annotations

import argparse
import importlib
import math
import re
import sqlite3
from collections.abc import Callable
from typing import TYPE_CHECKING

from lightning_elche.cli.arguments import parse_path
from lightning_elche.cli.coord_output import FORMATS, emit
from lightning_elche.cli.outcome import Outcome
from lightning_elche.cli.streams import told
from lightning_elche.exceptions import RegistryUnreachable

if TYPE_CHECKING:
    Verbs = argparse._SubParsersAction[argparse.ArgumentParser]

__all__ = ["add_to"]

EXIT_CODES = """\
exit codes:
{own}  2  wrong usage, or an option or a file is not valid
  0  all is well
"""
NO_RUN = "  3  there is no run\n"
UNKNOWN = "  3  there is none of this name\n"
STALE = "  4  the latest status is more than 10 seconds old\n"
UNREACHABLE = "  3  the registry cannot be reached\n"
MODULES = {
    **dict.fromkeys(("status", "runs", "eta"), "coord_status"),
    **dict.fromkeys(("halt", "resume", "pause", "checkpoint"), "coord_commands"),
    **dict.fromkeys(("why", "reserve", "release", "reset-breaker"), "coord_registry"),
    **{verb: f"coord_{verb}" for verb in ("admit", "watch", "serve", "config")},
}
INVALID, NOT_THERE = 2, 3
UNITS = {"": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
UNITS |= {"KIB": 1 << 10, "MIB": 1 << 20, "GIB": 1 << 30, "TIB": 1 << 40}


def add_to(parsers: Verbs) -> None:
    """Add the verb and its own verbs to the parser of `elche`."""
    coord = parsers.add_parser(
        "coord",
        help="watch runs, tell them what to do, and decide what may start",
        description="Runs that train with Coordination, and what may start on this machine.",
        epilog=EXIT_CODES.format(own="  others: see the help of the verb\n"),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    own = coord.add_subparsers(metavar="VERB", required=True)
    _add_watching(own)
    _add_commands(own)
    _add_starting(own)
    _add_editing(own)
    _add_serve(own)
    _add_config(own)


def _run(options: argparse.Namespace) -> int:
    # Only now, because help needs neither YAML nor the registry.
    module = importlib.import_module(f"lightning_elche.cli.{MODULES[options.verb]}")
    verb: Callable[[argparse.Namespace], Outcome | int]
    verb = getattr(module, options.verb.replace("-", "_"))
    try:
        outcome = verb(options)
    except RegistryUnreachable as err:
        outcome = Outcome.error(type(err).__name__, str(err), "", NOT_THERE)
    except (ValueError, OSError, RuntimeError, sqlite3.Error) as err:
        outcome = Outcome.error(type(err).__name__, told(err), "", INVALID)
    return outcome if isinstance(outcome, int) else emit(outcome, options)


def _add(own: Verbs, name: str, text: str, codes: str = "") -> argparse.ArgumentParser:
    parser = own.add_parser(
        name,
        help=text,
        description=f"{text[0].upper()}{text[1:]}.",
        epilog=EXIT_CODES.format(own=codes),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--format", choices=FORMATS, default="text", help="of the result")
    talk = parser.add_mutually_exclusive_group()
    talk.add_argument("-q", "--quiet", action="store_true", help="show only what is wrong")
    talk.add_argument("-v", "--verbose", action="store_true", help="show all that is known")
    parser.set_defaults(run=_run, verb=name)
    return parser


def _add_run(parser: argparse.ArgumentParser, *, is_needed: bool, default: str = "") -> None:
    text = f"folder in which it logs; default: {default}" if default else "folder in which it logs"
    count = {} if is_needed else {"nargs": "?"}
    parser.add_argument("folder", type=_text, metavar="RUN", help=text, **count)  # type: ignore[arg-type]  # `nargs` is a text


def _add_watching(own: Verbs) -> None:
    healthy = "  1  {} not healthy\n"
    status = _add(own, "status", "tell how a run is", healthy.format("it is") + NO_RUN + STALE)
    _add_run(status, is_needed=False, default="the only run of this machine")
    _add(
        own,
        "runs",
        "tell how all runs of this machine are",
        healthy.format("one of them is") + NO_RUN + STALE,
    )
    late = "  4  the run tells too little yet\n"
    eta = _add(own, "eta", "tell when a run will be over", NO_RUN + late)
    _add_run(eta, is_needed=True)
    watch = _add(own, "watch", "show how a run is until it ends", NO_RUN)
    _add_run(watch, is_needed=True)
    watch.add_argument(
        "--every", type=_seconds, default=1.0, metavar="S", help="seconds between two looks"
    )


def _add_commands(own: Verbs) -> None:
    texts = {
        "halt": "end a run with a checkpoint, or keep all from starting on this machine",
        "resume": "take back halt and pause",
        "pause": "make a run wait at its next averaging event",
        "checkpoint": "have a run save a checkpoint at its next averaging event",
    }
    for name, text in texts.items():
        parser = _add(own, name, text, NO_RUN)
        is_of_host = name in ("halt", "resume")
        default = "the whole machine" if is_of_host else "the only run of this machine"
        _add_run(parser, is_needed=False, default=default)
        if name != "resume":
            parser.add_argument(
                "--reason", default="", metavar="TEXT", help="to be shown to others"
            )
        if is_of_host:
            _add_place(parser)


def _add_starting(own: Verbs) -> None:
    why = _add(
        own, "why", "tell whether a task could start now", "  1  it could not\n" + UNREACHABLE
    )
    _add_request(why)
    refused = "  1  it was refused (see --refused-code)\n"
    admit = _add(
        own,
        "admit",
        "start a command when it is its turn; its exit code is passed on",
        refused + UNREACHABLE,
    )
    _add_request(admit)
    admit.add_argument("--wait", action="store_true", help="wait for its turn")
    admit.add_argument(
        "--timeout", type=_seconds, metavar="S", help="with --wait: seconds, then it is refused"
    )
    admit.add_argument(
        "--refused-code", type=_exit_code, default=1, metavar="N", help="exit code if refused"
    )
    admit.add_argument("command", nargs="+", metavar="CMD", help="after --, with its arguments")


def _add_request(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--kind", type=_text, metavar="K", help="of task; default: as configured")
    parser.add_argument("--gpus", type=_count, default=0, metavar="N", help="GPUs that it uses")
    for name, text in (("vram", "GPU memory that it needs"), ("ram", "memory that it needs")):
        parser.add_argument(f"--{name}", type=_bytes, default=0, metavar="B", help=f"{text}: 20GB")
    parser.add_argument(
        "--name", type=_text, metavar="NAME", help="of the run, for its own breaker"
    )
    parser.add_argument("--reservation", type=_text, metavar="NAME", help="one that it may use")
    _add_place(parser)


def _add_editing(own: Verbs) -> None:
    reserve = _add(own, "reserve", "keep a machine, or GPUs, for what asks by name", UNREACHABLE)
    reserve.add_argument("name", type=_text, metavar="NAME", help="to ask by")
    reserve.add_argument("--host", type=_text, metavar="H", help="machine; default: this one")
    reserve.add_argument("--kind", type=_text, metavar="K", help="kept out; default: every kind")
    reserve.add_argument("--gpus", type=_count, metavar="N", help="default: the whole machine")
    reserve.add_argument(
        "--for", dest="for_s", type=_seconds, metavar="S", help="seconds; default: until released"
    )
    release = _add(own, "release", "end a reservation", UNKNOWN)
    release.add_argument("name", type=_text, metavar="NAME", help="of the reservation")
    reset = _add(own, "reset-breaker", "let start again what kept failing", UNKNOWN)
    reset.add_argument("key", type=_text, metavar="KEY", help="such as run:pretrain; see coord why")
    for parser in (reserve, release, reset):
        _add_place(parser)


def _add_serve(own: Verbs) -> None:
    serve = _add(own, "serve", "let other machines use the registry of this one")
    serve.add_argument("--host", default="127.0.0.1", metavar="H", help="address to listen on")
    serve.add_argument("--port", type=_port, default=9473, metavar="P", help="port; 0: a free one")
    _add_place(serve)


def _add_config(own: Verbs) -> None:
    config = _add(
        own, "config", "print the options and their defaults", "  3  the file cannot be read\n"
    )
    config.add_argument(
        "--check", type=parse_path, metavar="FILE", help="tell whether this file is valid instead"
    )


def _add_place(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--config",
        type=parse_path,
        metavar="FILE",
        help="coordination.yaml with limits and place of the registry",
    )


def _text(text: str) -> str:
    if not text or "\0" in text:
        raise argparse.ArgumentTypeError(f"must not be empty, got {text!r}")
    return text


def _count(text: str) -> int:
    if not (text.isascii() and text.isdecimal()):
        raise argparse.ArgumentTypeError(f"must be a whole number of at least 0, got {text!r}")
    return int(text)


def _exit_code(text: str) -> int:
    if _count(text) > 255:
        raise argparse.ArgumentTypeError(f"must be at most 255, got {text!r}")
    return int(text)


def _port(text: str) -> int:
    if _count(text) > 65535:
        raise argparse.ArgumentTypeError(f"must be at most 65535, got {text!r}")
    return int(text)


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0.0 < seconds < math.inf:
        raise argparse.ArgumentTypeError(f"must be a number of seconds > 0, got {text!r}")
    return seconds


def _bytes(text: str) -> int:
    match = re.fullmatch(r"(\d+(?:\.\d+)?) ?([KMGT]I?B|)B?", text.upper())
    if match is None:
        raise argparse.ArgumentTypeError(f"must be a number of bytes such as 20GB, got {text!r}")
    return int(float(match[1]) * UNITS[match[2]])
