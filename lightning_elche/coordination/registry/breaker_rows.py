"""The breakers that all processes share, in the registry's file."""

from __future__ import annotations

import json
import random
import sqlite3
from collections.abc import Callable, Iterable
from dataclasses import asdict

from lightning_elche.coordination.breaker import Breaker, BreakerConfig, BreakerRecord

__all__ = ["OPENED", "BreakerRows", "breaker_keys"]

OPENED = "opened:"  # how often a breaker has, in the table of states; unlike `opens` it only grows


def breaker_keys(host: str, kind: str, run: str) -> tuple[str, ...]:
    """Return the keys that a start depends on, all of them."""
    keys = (f"host:{host}", f"kind:{kind}")
    return (*keys, f"run:{run}") if run else keys


class BreakerRows:
    """Reads breakers in a transaction, and writes those that have changed.

    Args:
        connection: Its transaction is open.
        config: Of all breakers.
        now_s: The time of the registry.
        draw: Random numbers in [0, 1).
    """

    def __init__(
        self,
        connection: sqlite3.Connection,
        config: BreakerConfig,
        now_s: float,
        draw: Callable[[], float] = random.random,
    ) -> None:
        self._connection, self._config, self._draw = connection, config, draw
        self._now_s = now_s
        self._loaded: dict[str, tuple[Breaker, BreakerRecord]] = {}

    def get(self, keys: Iterable[str]) -> dict[str, Breaker]:
        """Return breakers by key."""
        for key in keys:
            if key not in self._loaded:
                row = self._connection.execute(
                    "SELECT record FROM breaker WHERE key = ?", (key,)
                ).fetchone()
                kept = BreakerRecord(closed_s=self._now_s)
                if row is not None:
                    kept = BreakerRecord(**json.loads(row[0]))
                breaker = Breaker(self._config, record=kept, draw=self._draw)
                breaker.state(self._now_s)
                self._loaded[key] = (breaker, kept)
        return {key: self._loaded[key][0] for key in keys}

    def save(self) -> None:
        """Write what has changed; a breaker that remembers nothing needs no row."""
        for key, (breaker, kept) in self._loaded.items():
            record = breaker.record
            if record == kept:
                continue
            if record.opened_s is not None and record.opened_s != kept.opened_s:
                self._connection.execute(
                    "INSERT INTO state VALUES (?, '1') ON CONFLICT (name) DO UPDATE SET "
                    "value = CAST(value AS INTEGER) + 1",
                    (OPENED + key,),
                )
            if record.opened_s is None and not record.failures and not record.opens:
                self._connection.execute("DELETE FROM breaker WHERE key = ?", (key,))
            else:
                self._connection.execute(
                    "INSERT OR REPLACE INTO breaker VALUES (?, ?)",
                    (key, json.dumps(asdict(record))),
                )
            self._loaded[key] = (breaker, record)

    def begin(self, keys: Iterable[str], probe: str) -> None:
        """Let a start through all of them."""
        for breaker in self.get(keys).values():
            breaker.begin(self._now_s, probe)

    def end(self, keys: Iterable[str], probe: str, *, succeeded: bool | None) -> None:
        """Take in how a start ended, `None` if that says nothing of it."""
        for breaker in self.get(keys).values():
            if succeeded is None:
                breaker.drop(self._now_s, probe)
            elif succeeded:
                breaker.succeed(self._now_s, probe)
            else:
                breaker.fail(self._now_s, probe)

    def reset(self, key: str) -> bool:
        """Close a breaker, and return whether it remembered anything."""
        row = self._connection.execute("DELETE FROM breaker WHERE key = ?", (key,))
        self._loaded.pop(key, None)
        return row.rowcount > 0
