"""`elche checkpoint gc`: what dead processes have left in a root, removed."""

from __future__ import annotations

import argparse

from lightning_elche.cli.checkpoint_output import say
from lightning_elche.cli.checkpoint_places import place
from lightning_elche.cli.outcome import Line, Outcome, Problem
from lightning_elche.partition.fs import this_host
from lightning_elche.partition.gc import collect_garbage
from lightning_elche.partition.retention import Fate
from lightning_elche.partition.store_config import StoreConfig
from lightning_elche.partition.store_names import parse_checkpoint_name

__all__ = ["gc"]

FAILED = 1


def gc(options: argparse.Namespace) -> Outcome:
    """Return what becomes of each folder, and why.

    Raises:
        OSError: If the root cannot be read.
        ValueError: If it is a checkpoint, or an option is given for nothing.
    """
    root = place(options.path)
    if parse_checkpoint_name(root.name) is not None:
        raise ValueError(f"`ROOT` must be a folder of checkpoints, got the checkpoint {root}.")
    report = collect_garbage(this_host(), root, config=_config(options), should_apply=options.apply)
    failures = dict(report.failures)
    words = {fate.name: _word(fate, failures, options.apply) for fate in report.fates}
    is_waiting = not options.apply and any(fate.is_removed for fate in report.fates)
    if is_waiting:
        say("nothing was removed; --apply removes", options)
    if not report.fates:
        say(f"{root} has nothing to remove", options)
    return Outcome(
        lines=tuple(
            Line(
                f"{fate.name}: {failures.get(fate.name, fate.reason)}",
                words[fate.name],
                is_calm=not fate.is_removed,
            )
            for fate in report.fates
        ),
        data={
            "root": str(root),
            "applied": options.apply,
            "items": [
                {"name": fate.name, "fate": words[fate.name].lower(), "reason": fate.reason}
                for fate in report.fates
            ],
        },
        problems=tuple(
            Problem(str(root / name), "deletion", error) for name, error in report.failures
        ),
        exit_code=FAILED if failures else 0,
    )


def _config(options: argparse.Namespace) -> StoreConfig | None:
    for option, given in (("--mode", options.mode), ("--keep-best", options.keep_best)):
        if given is not None and options.monitor is None:
            raise ValueError(
                f"`{option}` must be given with `--monitor`, got {given!r} alone: without it no "
                "checkpoint is better than another."
            )
    if options.keep is None:
        if options.monitor is not None:
            raise ValueError(
                f"`--monitor` must be given with `--keep`, got {options.monitor!r} alone: without "
                "it all checkpoints stay."
            )
        return None
    return StoreConfig(
        max_retained=options.keep,
        monitor=options.monitor,
        mode=options.mode or "min",
        keep_best=options.keep_best or 1,
    )


def _word(fate: Fate, failures: dict[str, str], is_applied: bool) -> str:
    if fate.name in failures:
        return "FAILED"
    if not fate.is_removed:
        return "KEEP"
    return "REMOVED" if is_applied else "REMOVE"
