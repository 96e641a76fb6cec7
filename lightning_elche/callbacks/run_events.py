"""Tells what happened to a run outside of its normal course, one JSON line for each event."""

from __future__ import annotations

import json
import logging

__all__ = ["emit"]

log = logging.getLogger("lightning_elche.events")


def emit(kind: str, **data: object) -> None:
    """Log an event at level INFO.

    Args:
        kind: What happened, such as "rollback".
        **data: The particulars; JSON-serialisable.
    """
    log.info("%s", json.dumps({"event": kind, **data}))
