"""Verifies what a rank hands in at an averaging event, before it is averaged with the rest."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import fields
from typing import NoReturn

from lightning_elche.partition.replay_lanes import LanesPoint, LanesRecord, first_other
from lightning_elche.partition.replay_place import LocatedDivergence

__all__ = ["ReplayProbe", "divergence_between"]

REPLAY_CODE = 41  # beside that of a halted recovery


class ReplayProbe:
    """Is the abort source of a rank whose replica is not the recorded one.

    All ranks hear of it before they average, and raise the same error.

    Args:
        rank: This rank.
        take: Returns the lanes of its replica at present.
        record: Takes them in.
        expected: What this rank had recorded, if the run is verified.
        should_raise: Takes in a divergence, and returns whether the run ends.
    """

    def __init__(
        self,
        *,
        rank: int,
        take: Callable[[], LanesPoint],
        record: Callable[[LanesPoint], None],
        expected: LanesRecord | None,
        should_raise: Callable[[LocatedDivergence], bool],
    ) -> None:
        self._rank = rank
        self._take = take
        self._record = record
        self._expected = expected
        self._should_raise = should_raise
        self._found: LocatedDivergence | None = None

    def pending_abort(self, *, settle: bool = False) -> int:
        """As of `AbortSource`."""
        if settle and self._found is None:
            self._look()
        return REPLAY_CODE if self._found is not None else 0

    def words(self) -> str:
        """As of `AbortSource`."""
        found = self._found
        told = {one.name: getattr(found, one.name) for one in fields(LocatedDivergence)}
        return json.dumps(told)

    def raise_agreed(self, code: int, rank: int, words: str) -> NoReturn:
        """As of `AbortSource`."""
        del rank  # the words tell it
        assert code == REPLAY_CODE
        raise LocatedDivergence(**json.loads(words))

    def _look(self) -> None:
        point = self._take()
        expected = None if self._expected is None else self._expected.points.get(point.key)
        if expected is not None and expected.packed != point.packed:
            found = divergence_between(expected, point, rank=self._rank)
            if self._should_raise(found):
                self._found = found
                return
        self._record(point)


def divergence_between(expected: LanesPoint, actual: LanesPoint, *, rank: int) -> LocatedDivergence:
    """Return how two states differ, rows aside.

    Args:
        expected: As it was recorded.
        actual: As it is, at the same step.
        rank: Whose it is.
    """
    return LocatedDivergence(
        actual.step,
        expected.fingerprint().value,
        actual.fingerprint().value,
        sync_index=actual.sync_index,
        rank=rank,
        moment=actual.moment,
        tensor=first_other(expected.tensors, actual.tensors),
    )
