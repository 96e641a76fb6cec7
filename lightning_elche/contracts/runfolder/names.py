"""What the files of a run are called."""

from __future__ import annotations

import re

__all__ = ["CONTRACT_COPY", "RUN_FILE", "SUPERSEDED", "events_name", "rank_of_log", "steps_name"]

RUN_FILE = "run.json"
CONTRACT_COPY = "contract.yaml"
SUPERSEDED = "superseded"
STEP_LOG = re.compile(r"train(?:\.rank([1-9][0-9]*))?\.jsonl")


def steps_name(rank: int) -> str:
    """Return the name of the step log of a rank."""
    return f"train.rank{rank}.jsonl" if rank else "train.jsonl"


def events_name(rank: int) -> str:
    """Return the name of the event log of a rank."""
    return f"events.rank{rank}.jsonl" if rank else "events.jsonl"


def rank_of_log(name: str) -> int | None:
    """Return the rank whose step log has this name; `None` for any other file."""
    found = STEP_LOG.fullmatch(name)
    return int(found[1] or 0) if found else None
