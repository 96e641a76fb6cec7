"""Keeps a lease while its task runs, beside it, and gives it back."""

from __future__ import annotations

import logging
import os
import sqlite3
import threading
import time
from collections.abc import Callable
from typing import TypeVar

import psutil

from lightning_elche.coordination.host.claim import Claim
from lightning_elche.coordination.host.probes import CpuProbe
from lightning_elche.coordination.registry.lease_rows import BEAT_S
from lightning_elche.coordination.registry.request import Beat, GrantsLeases

__all__ = ["LEASE_VARIABLE", "UNREACHABLE", "LeaseKeeper", "use_of_tree"]

# The lease of the command that has started this process: it is used, and not given back.
LEASE_VARIABLE = "ELCHE_LEASE"
UNREACHABLE = (OSError, sqlite3.Error)  # a registry that does not answer, here or on another host
CLOSE_TIMEOUT_S = 5.0
SHORT_S = 1.0  # what a task that is over so soon has used says nothing

T = TypeVar("T")
log = logging.getLogger(__name__)


class LeaseKeeper:
    """Sends signs of life for a lease from a thread of its own, which a task never waits for.

    A registry that does not answer is asked again at the next sign of life; the task goes on, and
    nothing that was granted limits it meanwhile.

    Args:
        registry: Has given the lease.
        lease_id: Which.
        measure: Returns how busy the GPUs are, in percent, and how many bytes of their memory the
            task has used at most; `None` for what is not known. Without the first, it is the CPUs
            whose utilization is told.
        beat_s: Seconds between two signs of life.
        claim: What the task asks of its host's time; the registry hears of it at once, and at each
            sign of life.
    """

    def __init__(
        self,
        registry: GrantsLeases,
        lease_id: str,
        *,
        measure: Callable[[], tuple[float | None, int | None]] | None = None,
        beat_s: float = BEAT_S,
        claim: Claim | None = None,
    ) -> None:
        self.lease_id = lease_id
        self.is_held = True
        self._registry, self._measure, self._beat_s = registry, measure, beat_s
        self._claim = claim
        self._began_s, self._cpus = time.monotonic(), CpuProbe()
        self._has_progressed = self._is_progress_told = False
        self._pid = os.getpid()
        self._wake, self._over = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._keep, name="elche-lease", daemon=True)
        self._thread.start()

    def mark_progress(self) -> None:
        """Take in that the start has succeeded; the registry hears of it soon."""
        if not self._has_progressed:
            self._has_progressed = True
            self._wake.set()

    def release(self, *, succeeded: bool | None) -> None:
        """Give the lease back.

        Args:
            succeeded: Whether the task has; `None` if it was stopped from outside.
        """
        if self._over.is_set() or os.getpid() != self._pid:  # a forked child does not hold it
            return
        self._end()
        if time.monotonic() - self._began_s >= SHORT_S:
            self._beat()
        self._told(lambda: self._registry.release(self.lease_id, succeeded=succeeded))

    def stop(self) -> None:
        """Send no more signs of life, and keep the lease; progress is told, nothing is claimed."""
        has_claimed = self._claim is not None
        self._end()
        if has_claimed:
            self._told(lambda: self._registry.heartbeat(self.lease_id, requested=0.0))

    def _end(self) -> None:
        self._over.set()
        self._wake.set()
        self._thread.join(CLOSE_TIMEOUT_S)
        self._tell_progress()
        self._take(None)
        self._claim = None

    def _keep(self) -> None:
        if self._claim is not None:
            self._beat()
        while not self._over.is_set():
            is_woken = self._wake.wait(self._beat_s)
            self._wake.clear()
            if self._over.is_set():
                return
            self._tell_progress()
            if not is_woken:
                self._beat()

    def _tell_progress(self) -> None:
        if self._has_progressed and not self._is_progress_told:
            self._told(lambda: self._registry.progress(self.lease_id), self._note_progress)

    def _beat(self) -> None:
        elapsed_s = time.monotonic() - self._began_s
        ram_bytes, cores = use_of_tree(elapsed_s)
        busy_pct, vram_bytes = self._measure() if self._measure else (None, None)
        if busy_pct is None and elapsed_s >= SHORT_S:
            busy_pct = self._cpus.percent()
        claim = self._claim
        requested = None if claim is None else claim.ask()
        is_told = self._told(
            lambda: self._registry.heartbeat(
                self.lease_id,
                requested=requested,
                utilization_pct=busy_pct,
                vram_peak_bytes=vram_bytes,
                ram_peak_bytes=ram_bytes,
                cores_used=cores,
            ),
            self._note_beat,
        )
        if not is_told:
            self._take(None)

    def _take(self, granted: float | None) -> None:
        claim = self._claim  # at the end it goes, maybe while a late answer comes in
        if claim is not None:
            claim.take(granted)

    def _told(self, call: Callable[[], T], note: Callable[[T], None] = lambda _: None) -> bool:
        """Return whether the registry has answered."""
        try:
            note(call())
        except (*UNREACHABLE, ValueError) as err:  # one of another version may take it for wrong
            log.warning("The registry does not answer, the task goes on: %s", err)
            return False
        return True

    def _note_progress(self, _: None) -> None:
        self._is_progress_told = True

    def _note_beat(self, beat: Beat) -> None:
        if self.is_held and not beat.is_held:
            log.warning(
                "The lease %s is not held any more: it was taken back, since no sign of life came "
                "for long. The task goes on; others may start beside it.",
                self.lease_id,
            )
        self.is_held = beat.is_held
        self._take(beat.grant)


def use_of_tree(elapsed_s: float) -> tuple[int, float]:
    """Return the memory of this process and those it has started, and the cores that they use.

    Args:
        elapsed_s: Since the task began.
    """
    own = psutil.Process()
    ram_bytes, busy_s = 0, 0.0
    for process in (own, *own.children(recursive=True)):
        try:
            ram_bytes += process.memory_info().rss
            times = process.cpu_times()
        except psutil.Error:  # it has ended, or belongs to somebody else
            continue
        busy_s += times.user + times.system
    return ram_bytes, busy_s / max(elapsed_s, time.time() - own.create_time())
