"""How long runs took, in the registry that the processes of a machine share."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lightning_elche.coordination.schedule.durations import Duration

if TYPE_CHECKING:
    from lightning_elche.coordination.registry.database import Database

__all__ = ["DurationTable"]


class DurationTable:
    """The durations of a registry, beside those that it keeps of its leases.

    Args:
        database: Of the registry.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    def add_duration(self, duration: Duration) -> None:
        """Take in one."""
        with self._database.write() as connection:
            connection.execute(
                "INSERT INTO duration (at_s, kind, run, host, duration_s, succeeded) "
                "VALUES (?, ?, ?, ?, ?, ?)",
                (
                    duration.at,
                    duration.kind,
                    duration.fingerprint,
                    duration.host,
                    duration.seconds,
                    duration.is_success,
                ),
            )

    def durations(self, kind: str, *, since: float) -> list[Duration]:
        """Return those of a kind that were over at or after a moment."""
        rows = self._database.read(
            "SELECT kind, run, host, duration_s, at_s, succeeded FROM duration "
            "WHERE kind = ? AND at_s >= ?",
            (kind, since),
        )
        return [
            Duration(
                kind=row[0],
                fingerprint=row[1],
                host=row[2],
                seconds=row[3],
                at=row[4],
                is_success=bool(row[5]),
            )
            for row in rows
        ]
