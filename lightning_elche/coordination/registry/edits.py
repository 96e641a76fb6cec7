"""What people change in the registry, written down with their names."""

from __future__ import annotations

import getpass
import json
import logging
import math
import socket
import sqlite3
from pathlib import Path

from lightning_elche.coordination.registry.breaker_rows import BreakerRows
from lightning_elche.coordination.stopping.commands import remove_command

__all__ = ["Edits", "user_name"]

ORDERS = ("halted", "paused")
log = logging.getLogger(__name__)


class Edits:
    """Changes in an open transaction.

    Args:
        connection: Of the transaction.
        now_s: The time of the registry.
        by: Who makes them.
        breakers: In the same transaction.
    """

    def __init__(
        self, connection: sqlite3.Connection, now_s: float, by: str, breakers: BreakerRows
    ) -> None:
        self._connection, self._now_s, self._by = connection, now_s, by
        self._breakers = breakers

    def order(self, name: str, reason: str) -> None:
        """Halt or pause all starts.

        Args:
            name: "halted" or "paused".
            reason: Why.
        """
        value = json.dumps({"at_s": self._now_s, "by": self._by, "reason": reason})
        self._connection.execute("INSERT OR REPLACE INTO state VALUES (?, ?)", (name, value))
        self._note(f"{name}: {reason}")

    def resume(self, folder: Path) -> bool:
        """Take back all orders and the HALT file of a folder; return whether there were any."""
        marks = ", ".join("?" * len(ORDERS))
        found = self._connection.execute(f"DELETE FROM state WHERE name IN ({marks})", ORDERS)
        is_any = remove_command(folder, "HALT") or found.rowcount > 0
        if is_any:
            self._note("resumed")
        return is_any

    def reserve(
        self,
        name: str,
        *,
        host: str | None,
        kind: str | None,
        gpus: int | None,
        for_s: float | None,
    ) -> None:
        """Make or replace a reservation; arguments are as of `Registry.reserve`."""
        if not name:
            raise ValueError("`name` must not be empty, got ''.")
        if gpus is not None and gpus < 1:
            raise ValueError(f"`gpus` must be >= 1, or None for the whole host, got {gpus}.")
        if for_s is not None and not 0.0 < for_s < math.inf:
            raise ValueError(f"`for_s` must be > 0 and finite, or None for no end, got {for_s}.")
        host = host or socket.gethostname()
        until_s = None if for_s is None else self._now_s + for_s
        self._connection.execute(
            "INSERT OR REPLACE INTO reservation VALUES (?, ?, ?, ?, ?, ?, ?)",
            (name, host, kind or "", gpus, self._by, self._now_s, until_s),
        )
        what = host if gpus is None else f"{gpus} GPUs of {host}"
        self._note(f"reserved {what} for {name}")

    def unreserve(self, name: str) -> bool:
        """Drop a reservation, and return whether there was one."""
        found = self._connection.execute("DELETE FROM reservation WHERE name = ?", (name,))
        if found.rowcount:
            self._note(f"dropped the reservation {name}")
        return found.rowcount > 0

    def reset_breaker(self, key: str) -> bool:
        """Close a breaker, and return whether it remembered anything."""
        is_found = self._breakers.reset(key)
        if is_found:
            self._note(f"closed the breaker {key}")
        return is_found

    def _note(self, what: str) -> None:
        self._connection.execute("INSERT INTO edit VALUES (?, ?, ?)", (self._now_s, self._by, what))
        log.info("%s, by %s", what, self._by)


def user_name() -> str:
    """Return the name of who runs this process."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container may have a user without a name
        return "unknown"
