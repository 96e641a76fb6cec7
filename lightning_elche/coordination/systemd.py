"""Tells systemd that a service is up, alive, or about to end (`sd_notify`)."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Mapping

__all__ = ["SystemdNotifier"]

log = logging.getLogger(__name__)

SEND_TIMEOUT_S = 1.0


class SystemdNotifier:
    """Sends datagrams to the socket that `NOTIFY_SOCKET` names; does nothing without one.

    Args:
        environment: As `os.environ`.
        pid: Of this process; the watchdog may be meant for another one.
    """

    def __init__(self, environment: Mapping[str, str], *, pid: int | None = None) -> None:
        self._address = environment.get("NOTIFY_SOCKET", "")
        is_watched = environment.get("WATCHDOG_PID") in (None, str(pid or os.getpid()))
        limit_us = environment.get("WATCHDOG_USEC", "") if is_watched else ""
        self._limit_s = int(limit_us) / 1e6 if limit_us.isdigit() else None
        self._is_stopping = self._has_complained = False

    @property
    def is_active(self) -> bool:
        """Whether there is a service manager to tell."""
        return bool(self._address)

    @property
    def watchdog_s(self) -> float | None:
        """Seconds after which systemd takes a silent service for dead, `None` for never."""
        return self._limit_s if self.is_active else None

    def ready(self) -> None:
        """Say that training has begun."""
        self._send("READY=1")

    def alive(self) -> None:
        """Say that the main loop moves on; a service with a watchdog is killed without it."""
        if self._limit_s is not None:
            self._send("WATCHDOG=1")

    def stopping(self) -> None:
        """Say that the run ends; once."""
        if not self._is_stopping:
            self._is_stopping = True
            self._send("STOPPING=1")

    def _send(self, message: str) -> None:
        if not self._address:
            return
        # A name that begins with @ is in the abstract namespace, which has no files.
        address = f"\0{self._address[1:]}" if self._address.startswith("@") else self._address
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
                channel.settimeout(SEND_TIMEOUT_S)
                channel.sendto(message.encode(), address)
        except OSError as err:
            if not self._has_complained:
                self._has_complained = True
                log.warning("systemd cannot be told %s by %s: %s", message, self._address, err)
