"""Lets one rank's wish to abort be heard by all, before their parameters are averaged."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from lightning_elche.control.reports import Report, abort_of
from lightning_elche.distributed.control_store import ControlStore
from lightning_elche.typing import AbortSource

__all__ = ["AbortWatch"]


class AbortWatch:
    """Asks this rank's abort source, if it has one, and acts on what those of all ranks say.

    Args:
        store: Where a rank leaves word why.
        rank: This rank.
    """

    def __init__(self, store: ControlStore, rank: int) -> None:
        self.source: AbortSource | None = None
        self._store = store
        self._rank = rank

    @property
    def is_pending(self) -> bool:
        """Whether this rank is known to want an abort."""
        return self.source is not None and self.source.pending_abort() != 0

    def sign(self, own: Report) -> Report:
        """Return the rank's report with what its source says."""
        if self.source is None:
            return own
        code = self.source.pending_abort(settle=True)
        if code:
            self._store.post_cause(self._rank, self.source.words())
        return replace(own, gate_abort=code)

    def act_on(self, reports: Sequence[Report]) -> None:
        """Raise what the sources agree on, if one of them wants an abort.

        Args:
            reports: Those of all ranks.
        """
        abort = abort_of(reports)
        if abort is not None and self.source is not None:
            code, rank = abort
            self.source.raise_agreed(code, rank, self._store.cause(rank))
