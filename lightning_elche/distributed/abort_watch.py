"""Lets one rank's wish to abort be heard by all, before their parameters are averaged."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from lightning_elche.control.reports import Report, abort_of
from lightning_elche.distributed.control_store import ControlStore
from lightning_elche.typing import AbortSource

__all__ = ["AbortWatch"]


class AbortWatch:
    """Asks this rank's abort sources, if it has any, and acts on what those of all ranks say.

    Args:
        store: Where a rank leaves word why.
        rank: This rank.
    """

    def __init__(self, store: ControlStore, rank: int) -> None:
        self._sources: list[AbortSource] = []
        self._store = store
        self._rank = rank

    def attach(self, source: AbortSource) -> None:
        """Ask `source`, too; every rank attaches its own in the same order."""
        self._sources.append(source)

    @property
    def is_pending(self) -> bool:
        """Whether this rank is known to want an abort."""
        return any(source.pending_abort() != 0 for source in self._sources)

    def sign(self, own: Report) -> Report:
        """Return the rank's report with what its sources say; the largest code counts."""
        if not self._sources:
            return own
        codes = [source.pending_abort(settle=True) for source in self._sources]
        code = max(codes)
        if code:
            index = codes.index(code)
            self._store.post_cause(self._rank, f"{index} {self._sources[index].words()}")
        return replace(own, gate_abort=code)

    def act_on(self, reports: Sequence[Report]) -> None:
        """Raise what the sources agree on, if one of them wants an abort.

        Args:
            reports: Those of all ranks.
        """
        abort = abort_of(reports)
        if abort is not None and self._sources:
            code, rank = abort
            index, _, words = self._store.cause(rank).partition(" ")
            self._sources[int(index)].raise_agreed(code, rank, words)
