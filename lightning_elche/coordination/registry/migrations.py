"""The tables of the registry, and how an older file becomes one of today."""

from __future__ import annotations

__all__ = ["MIGRATIONS"]

# Each brings a file from the version of its index to the next; none is ever changed.
# Seconds are of the registry's clock, see `registry_clock`.
MIGRATIONS: tuple[tuple[str, ...], ...] = (
    (
        """
        CREATE TABLE lease (
            id TEXT PRIMARY KEY, kind TEXT NOT NULL, host TEXT NOT NULL, run TEXT NOT NULL,
            pid INTEGER NOT NULL, started TEXT NOT NULL, boot TEXT NOT NULL,
            pid_namespace TEXT NOT NULL,
            gpus INTEGER NOT NULL, vram_bytes INTEGER NOT NULL, ram_bytes INTEGER NOT NULL,
            weight REAL NOT NULL, reservation TEXT NOT NULL,
            since_s REAL NOT NULL, beat_s REAL NOT NULL, has_progressed INTEGER NOT NULL DEFAULT 0,
            requested REAL, vram_peak_bytes INTEGER, ram_peak_bytes INTEGER, cores_used REAL
        ) WITHOUT ROWID
        """,
        """
        CREATE TABLE ticket (
            position INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE,
            kind TEXT NOT NULL, host TEXT NOT NULL,
            pid INTEGER NOT NULL, started TEXT NOT NULL, boot TEXT NOT NULL,
            pid_namespace TEXT NOT NULL, since_s REAL NOT NULL, beat_s REAL NOT NULL
        )
        """,
        "CREATE TABLE spawn_log (at_s REAL NOT NULL, kind TEXT NOT NULL, host TEXT NOT NULL)",
        "CREATE INDEX spawn_log_at ON spawn_log (at_s)",
        "CREATE TABLE bucket (name TEXT PRIMARY KEY, tokens REAL NOT NULL, at_s REAL NOT NULL)",
        "CREATE TABLE breaker (key TEXT PRIMARY KEY, record TEXT NOT NULL)",
        """
        CREATE TABLE duration (
            at_s REAL NOT NULL, kind TEXT NOT NULL, run TEXT NOT NULL, host TEXT NOT NULL,
            duration_s REAL NOT NULL, succeeded INTEGER,
            vram_peak_bytes INTEGER, ram_peak_bytes INTEGER, cores_used REAL
        )
        """,
        "CREATE INDEX duration_kind ON duration (kind, at_s)",
        """
        CREATE TABLE transfer (
            id TEXT PRIMARY KEY, host TEXT NOT NULL, priority TEXT NOT NULL, mbps REAL NOT NULL,
            num_bytes INTEGER NOT NULL, since_s REAL NOT NULL, until_s REAL NOT NULL
        ) WITHOUT ROWID
        """,
        """
        CREATE TABLE host (
            name TEXT PRIMARY KEY, machine TEXT NOT NULL, slots INTEGER, moved_s REAL
        ) WITHOUT ROWID
        """,
        """
        CREATE TABLE reservation (
            name TEXT PRIMARY KEY, host TEXT NOT NULL, kind TEXT NOT NULL, gpus INTEGER,
            by TEXT NOT NULL, since_s REAL NOT NULL, until_s REAL
        ) WITHOUT ROWID
        """,
        "CREATE TABLE edit (at_s REAL NOT NULL, by TEXT NOT NULL, what TEXT NOT NULL)",
        "CREATE TABLE state (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID",
    ),
)
