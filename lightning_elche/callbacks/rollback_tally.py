"""What is logged of snapshots and repairs."""

from __future__ import annotations

from dataclasses import dataclass

from lightning_elche.control.recovery import Recovery
from lightning_elche.ops.ring import Ring

__all__ = ["Tally"]


@dataclass
class Tally:
    """Counts of one fit, of this rank.

    Attributes:
        restores: Snapshots that were restored.
        disk_restores: Checkpoints that were restored.
        deadline_exceeded: How often reading one took too long.
        failures: Bad batches for which there was none.
        undone: Batches that were undone.
        put_ms: How long the last snapshot took.
        restore_ms: How long the last restoration took.
    """

    restores: int = 0
    disk_restores: int = 0
    deadline_exceeded: int = 0
    failures: int = 0
    undone: int = 0
    put_ms: float = 0.0
    restore_ms: float = 0.0

    def metrics(self, ring: Ring, recovery: Recovery) -> dict[str, float]:
        """Return what is logged, by name."""
        return {
            "rollback/snapshots": float(ring.snapshots),
            "rollback/ring_bytes": float(ring.nbytes),
            "rollback/snapshot_ms": self.put_ms,
            "rollback/refused": float(ring.refused),
            "rollback/ram_restores": float(self.restores),
            "rollback/disk_restores": float(self.disk_restores),
            "rollback/deadline_exceeded": float(self.deadline_exceeded),
            "rollback/restore_ms": self.restore_ms,
            "rollback/failures": float(self.failures),
            "rollback/incidents": float(recovery.incidents),
            "rollback/undone_batches": float(self.undone),
            "rollback/lr_scale": recovery.lr_scale,
        }
