"""Where a run shows how it is."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["ExportConfig"]

MOST_PORTS = 65535


@dataclass(frozen=True, kw_only=True)
class ExportConfig:
    """Where a run shows how it is; without options in its own folder only.

    Args:
        port: Serve metrics, health and state by HTTP at this port; 0 takes a free one.
        host: Address to serve at.
        textfile: Write the metrics to this file, for the textfile collector of a node exporter.
        status_period_s: Seconds between two versions of `status.json` and of the textfile.
    """

    port: int | None = None
    host: str = "127.0.0.1"
    textfile: str | None = None
    status_period_s: float = 1.0

    def __post_init__(self) -> None:
        """Validate."""
        if self.port is not None and not 0 <= self.port <= MOST_PORTS:
            raise ValueError(
                f"`port` must be in [0, {MOST_PORTS}] or null, got {self.port}. Leave it out to "
                "serve nothing."
            )
        if not self.host:
            raise ValueError('`host` must be an address, got "". Use "127.0.0.1" for this machine.')
        if not self.status_period_s > 0:
            raise ValueError(
                f"`status_period_s` must be > 0, got {self.status_period_s}. One second is usual."
            )
