"""Lets all ranks hear what the registry grants the run, of which only rank zero is told."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lightning_elche.exceptions import PeerLost

if TYPE_CHECKING:
    from lightning_elche.coordination.host.claim import Claim
    from lightning_elche.distributed.control_store import ControlStore

__all__ = ["GrantLink"]

KEY = "grant"
PARTS = 1_000_000  # of the time; grants are counted in whole ones


class GrantLink:
    """Hands the grant of rank zero on at averaging events, without waiting for any rank.

    The others have it one event later at the latest. Cost: one operation of the store an event, on
    rank zero only where the grant has changed. A counter, since to read it takes one operation; 0
    is no grant.

    Args:
        claim: Of this rank. On rank zero the registry fills it, on the others this does.
        store: That all ranks share, under a name that is unique to the run.
        rank: This rank.
    """

    def __init__(self, claim: Claim, store: ControlStore, rank: int) -> None:
        self._claim, self._store, self._rank = claim, store, rank
        self._told = 0

    def exchange(self) -> None:
        """Tell or hear of the grant; every rank calls this at each averaging event."""
        try:
            if self._rank == 0:
                self._tell()
            else:
                parts = self._store.add(KEY, 0)
                self._claim.take(parts / PARTS if parts else None)
        except PeerLost:  # rank 0 is gone, which ends the run at its next event, not here
            self._claim.take(None)

    def _tell(self) -> None:
        granted = self._claim.granted
        parts = 0 if granted is None else max(1, round(PARTS * granted))
        if parts != self._told:
            self._store.add(KEY, parts - self._told)
            self._told = parts
