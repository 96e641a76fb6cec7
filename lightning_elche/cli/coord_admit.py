"""`elche coord admit -- CMD`: a command that starts when it is its turn."""

from __future__ import annotations

import argparse
import contextlib
import time
from dataclasses import replace

from lightning_elche.cli.coord_child import HeldCommand, Interrupted
from lightning_elche.cli.coord_output import complain, emit
from lightning_elche.cli.coord_registry import ASK_LESS, configured, request_of
from lightning_elche.cli.outcome import Outcome, Problem
from lightning_elche.coordination.registry.lease_keeper import (
    LEASE_VARIABLE,
    UNREACHABLE,
    LeaseKeeper,
)
from lightning_elche.coordination.registry.place import AnyRegistry, open_registry
from lightning_elche.coordination.registry.request import FINAL, Decision, Lease, Request

__all__ = ["admit"]

LEAST_PAUSE_S, LONGEST_PAUSE_S = 0.05, 5.0


def admit(options: argparse.Namespace) -> int:
    """Start the command when it may, and return its exit code."""
    if options.timeout is not None and not options.wait:
        raise ValueError(
            "`--timeout` must be given with `--wait`: without it nothing is waited for."
        )
    config = configured(options)
    with contextlib.closing(HeldCommand(options.command)) as command:
        registry = open_registry(config)
        request = request_of(options, config, process=command.process, wait=options.wait)
        try:
            decision = _turn(registry, request, command, options.timeout)
        except Interrupted as err:
            return err.exit_code
        except UNREACHABLE as err:
            if config.limits.on_unreachable == "allow":
                complain(f"{err} It starts without a lease, as `on_unreachable` says.")
                return command.run({})
            decision = Decision(allowed=False, code="unreachable", reason=str(err))
        if decision.lease is None:
            return _refused(decision, options)
        if options.verbose:
            complain(f"admitted as {decision.reason}, lease {decision.lease.id}")
        return _run(registry, decision.lease, command, decision.delay_s)


def _turn(
    registry: AnyRegistry, request: Request, command: HeldCommand, timeout_s: float | None
) -> Decision:
    """Return the answer of the registry; with `wait` that is a refusal only where it is final.

    Raises:
        Interrupted: If this process is told to end meanwhile; its place in the queue is given up.
        OSError: If the registry does not answer.
    """
    deadline_s = float("inf") if timeout_s is None else time.monotonic() + timeout_s
    decision = registry.admit(request)
    while not decision.allowed and decision.ticket is not None:
        left_s = deadline_s - time.monotonic()
        pause_s = min(max(decision.retry_after_s, LEAST_PAUSE_S), LONGEST_PAUSE_S, left_s)
        try:
            command.wait_to_begin(pause_s)
        except Interrupted:
            registry.cancel(decision.ticket)
            raise
        if time.monotonic() >= deadline_s:
            registry.cancel(decision.ticket)
            return decision
        decision = registry.admit(replace(request, ticket=decision.ticket))
    return decision


def _run(registry: AnyRegistry, lease: Lease, command: HeldCommand, delay_s: float) -> int:
    """Run the command with a lease, and give that back."""
    keeper = LeaseKeeper(registry, lease.id)
    code: int | None = None
    try:
        command.wait_to_begin(delay_s)
        code = command.run({LEASE_VARIABLE: lease.id})
        return code
    except Interrupted as err:
        return err.exit_code
    finally:
        # Not its `release`, which would measure what the command uses: nothing any more.
        keeper.stop()
        was_stopped = code is None or command.last_signal is not None
        try:
            registry.release(lease.id, succeeded=None if was_stopped else code == 0)
        except UNREACHABLE as err:  # it finds out by itself that the process has ended
            complain(f"The lease was not given back: {err}")


def _refused(decision: Decision, options: argparse.Namespace) -> int:
    reason = f"{decision.code}: {decision.reason.removesuffix('.')}"
    message = f"{options.command[0]} was not started: {reason}. {_advice(decision, options)}"
    outcome = Outcome(
        data={"decision": decision.to_dict()},
        problems=(Problem("", decision.code, message),),
        exit_code=options.refused_code,
    )
    return emit(outcome, options)


def _advice(decision: Decision, options: argparse.Namespace) -> str:
    if decision.code in FINAL:
        return ASK_LESS
    if decision.code == "unreachable":
        return "Start `elche coord serve` there, or set `limits: {on_unreachable: allow}`."
    return "Try again later." if options.wait else "`--wait` waits for its turn."
