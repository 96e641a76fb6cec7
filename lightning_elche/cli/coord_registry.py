"""`elche coord why`, `reserve`, `release` and `reset-breaker`: the registry asked and edited."""

from __future__ import annotations

import argparse
import os
import socket
from collections.abc import Iterator
from pathlib import Path

from lightning_elche.cli.outcome import Line, Outcome, Problem
from lightning_elche.coordination.config import CoordinationConfig
from lightning_elche.coordination.registry.admit_threshold import shortage
from lightning_elche.coordination.registry.machine import read_machine
from lightning_elche.coordination.registry.place import AnyRegistry, open_registry
from lightning_elche.coordination.registry.request import FINAL, Decision, Request, Rule

__all__ = [
    "ASK_LESS",
    "configured",
    "opened",
    "release",
    "request_of",
    "reserve",
    "reset_breaker",
    "why",
]

REFUSED, UNKNOWN = 1, 3
ASK_LESS = "Ask for less, or on another machine."


def configured(options: argparse.Namespace) -> CoordinationConfig:
    """Return the options of `--config` and of the environment.

    Raises:
        ValueError: If they are not valid.
        OSError: If the file cannot be read.
    """
    return CoordinationConfig.load(options.config, os.environ)


def opened(options: argparse.Namespace) -> AnyRegistry:
    """Return the registry that `--config` and the environment mean."""
    return open_registry(configured(options))


def request_of(options: argparse.Namespace, config: CoordinationConfig, **more: object) -> Request:
    """Return what the options ask for."""
    return Request(
        kind=options.kind or config.limits.kind,
        host=socket.gethostname(),
        run=options.name or "",
        gpus=options.gpus,
        vram_bytes=options.vram,
        ram_bytes=options.ram,
        machine=read_machine(),
        weight=config.limits.weight,
        reservation=options.reservation or "",
        threshold=shortage(config.thresholds, Path.cwd()),
        **more,  # type: ignore[arg-type]  # fields of it
    )


def why(options: argparse.Namespace) -> Outcome:
    """Return whether a task could start now, and what each rule says to it."""
    config = configured(options)
    decision = open_registry(config).why(request_of(options, config))
    return Outcome(
        lines=tuple(_lines(decision)),
        data={"decision": decision.to_dict()},
        problems=() if decision.allowed else (Problem("", decision.code, decision.reason),),
        exit_code=0 if decision.allowed else REFUSED,
    )


def reserve(options: argparse.Namespace) -> Outcome:
    """Keep room on a host."""
    opened(options).reserve(
        options.name,
        host=options.host,
        kind=options.kind,
        gpus=options.gpus,
        for_s=options.for_s,
    )
    return _done(f"reserved for {options.name}")


def release(options: argparse.Namespace) -> Outcome:
    """Drop a reservation."""
    is_found = opened(options).unreserve(options.name)
    return _done(f"{options.name} is not reserved any more") if is_found else _unknown(options.name)


def reset_breaker(options: argparse.Namespace) -> Outcome:
    """Close a breaker."""
    is_found = opened(options).reset_breaker(options.key)
    return _done(f"{options.key} is closed") if is_found else _unknown(options.key)


def _lines(decision: Decision) -> Iterator[Line]:
    word = "ADMITTED" if decision.allowed else "REFUSED"
    advice = ""
    if decision.code in FINAL:
        advice = f" {ASK_LESS}"
    elif decision.retry_after_s > 0.0:
        advice = f" Ask again in {decision.retry_after_s:.1f} s."
    yield Line(f"{decision.code}: {decision.reason}.{advice}", word, decision.allowed)
    yield from (_rule_line(rule) for rule in decision.rules)


def _rule_line(rule: Rule) -> Line:
    return Line(f"{rule.code}: {rule.reason}", "ok" if rule.is_met else "no", rule.is_met)


def _done(text: str) -> Outcome:
    return Outcome(lines=(Line(text, "DONE", is_calm=True),), data={"done": text})


def _unknown(name: str) -> Outcome:
    return Outcome.error(
        "Unknown", f"The registry knows no {name!r}. See `elche coord why`.", name, UNKNOWN
    )
