"""The latest snapshots of a rank, in memory that is allocated once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor

from lightning_elche.control.recovery import Stage
from lightning_elche.ops.snapshot import LiveState, Snapshot

__all__ = ["Ring", "RingConfig", "Slot"]

NUM_EVENTS = 2


@dataclass(frozen=True, kw_only=True)
class RingConfig:
    """How often snapshots are taken, and how many are kept.

    Args:
        every: Optimizer steps of this rank between two snapshots.
        depth: Snapshots that are kept, at least 2: the latest one, and one to fall back to.
        max_bytes: Memory that they may take on each rank.

    Example:
        >>> RingConfig(every=20, depth=3)
        RingConfig(every=20, depth=3, max_bytes=4294967296)
    """

    every: int = 1
    depth: int = 2
    max_bytes: int = 4 * 2**30

    def __post_init__(self) -> None:
        """Validate."""
        if self.every < 1:
            raise ValueError(f"`every` must be >= 1, got {self.every}.")
        if self.depth < 2:
            raise ValueError(
                f"`depth` must be >= 2, since the latest snapshot may hold the damage, got "
                f"{self.depth}."
            )
        if self.max_bytes < 1:
            raise ValueError(f"`max_bytes` must be >= 1, got {self.max_bytes}.")


@dataclass(eq=False, kw_only=True)
class Slot:
    """A snapshot and when it was taken.

    Attributes:
        snapshot: The copy.
        step: Optimizer steps of this rank that it holds.
        batch: Batches that this rank had begun.
        undone: Those of them that were undone.
        event: The averaging event whose outcome it is, -1 for none.
        global_step: Optimizer steps that the Trainer counted.
        stage: How far it is trusted.
    """

    snapshot: Snapshot
    step: int
    batch: int
    undone: int = 0
    event: int = -1
    global_step: int = 0
    stage: Stage = Stage.PENDING

    @property
    def is_lasting(self) -> bool:
        """Whether it is not given up for another one of its round."""
        return self.event >= 0


class Ring:
    """Keeps the latest snapshots, oldest first.

    Snapshots of averaging events are kept beside the others, the last two of them.

    Args:
        config: How many, and how large.
        live: What they are taken of.
        to_evict: Returns the index of the snapshot that can be given up for a new one.

    Attributes:
        slots: The snapshots of this round.
        earlier: Snapshots of averaging events before it.
        snapshots: How many were taken.
        refused: How many were not, for want of memory.
    """

    def __init__(
        self,
        config: RingConfig,
        live: LiveState,
        to_evict: Callable[[Sequence[Slot]], int | None],
    ) -> None:
        self.config = config
        self.slots: list[Slot] = []
        self.earlier: list[Slot] = []
        self.snapshots = self.refused = 0
        self._live = live
        self._to_evict = to_evict
        self._free: list[Snapshot] = []
        self._encoded = 0  # bytes of the last snapshot that are no tensors
        self._unchecked = live.infinite_buffers()

    @property
    def nbytes(self) -> int:
        """Bytes that are held."""
        used = [slot.snapshot for slot in (*self.slots, *self.earlier)]
        return sum(snapshot.nbytes for snapshot in (*used, *self._free))

    def pending(self) -> list[Slot]:
        """Return the snapshots that are not known to be finite."""
        return [slot for slot in self.slots if slot.stage is Stage.PENDING]

    def live_sums(self) -> list[Tensor]:
        """Return numbers that are finite if the present state is. Cost: one pass."""
        return self._live.sums(without=self._unchecked)

    def put(
        self, *, step: int, batch: int, undone: int = 0, event: int = -1, global_step: int = 0
    ) -> Slot | None:
        """Take a snapshot.

        Args:
            step: As of `Slot`.
            batch: As of `Slot`.
            undone: As of `Slot`.
            event: As of `Slot`.
            global_step: As of `Slot`.

        Returns:
            It, or `None` if there is no room.

        Raises:
            ValueError: If there is no room for two, once optimizers have a state.
        """
        parts = self._live.parts()
        nbytes = parts.nbytes + self._encoded
        if step > 0 and 2 * nbytes > self.config.max_bytes:
            raise ValueError(
                f"`max_bytes` must be at least {2 * nbytes}, which is two snapshots of {nbytes} "
                f"bytes each, got {self.config.max_bytes}."
            )
        if event >= 0:
            self._keep_earlier(NUM_EVENTS - 1)
        snapshot = self._room(nbytes, is_event=event >= 0)
        if snapshot is None:
            return None
        snapshot.put(self._live, parts)
        self._encoded = snapshot.nbytes - parts.nbytes
        slot = Slot(
            snapshot=snapshot,
            step=step,
            batch=batch,
            undone=undone,
            event=event,
            global_step=global_step,
        )
        self.slots.append(slot)
        self.snapshots += 1
        return slot

    def _room(self, nbytes: int, *, is_event: bool) -> Snapshot | None:
        """Return a snapshot that may be overwritten, or a new one."""
        while True:
            num_kept = sum(not slot.is_lasting for slot in self.slots)
            is_full = num_kept >= self.config.depth and not is_event
            if not is_full:
                del self._free[1:]
                others = self.nbytes - sum(snapshot.nbytes for snapshot in self._free)
                if others + nbytes <= self.config.max_bytes:
                    return self._free.pop() if self._free else Snapshot(unchecked=self._unchecked)
            index = self._to_evict(self.slots)
            if index is None:
                self.refused += not is_full
                return None
            self._free.append(self.slots.pop(index).snapshot)

    def restore(self, slot: Slot, *, keep_schedules: bool = False) -> None:
        """Put a snapshot back and give up all later ones."""
        slot.snapshot.restore(self._live, keep_schedules=keep_schedules)
        first = self.slots.index(slot) + 1 if slot in self.slots else 0
        self._free += [later.snapshot for later in self.slots[first:]]
        del self.slots[first:]

    def drop(self, slot: Slot) -> None:
        """Give up a snapshot of this round."""
        self.slots.remove(slot)
        self._free.append(slot.snapshot)

    def clear(self) -> None:
        """Give up all snapshots."""
        self._free += [slot.snapshot for slot in (*self.slots, *self.earlier)]
        self.slots, self.earlier = [], []

    def begin_round(self) -> None:
        """Give up all snapshots but those of the last averaging events."""
        events = [slot for slot in self.slots if slot.is_lasting and slot.stage > Stage.PENDING]
        self._free += [slot.snapshot for slot in self.slots if slot not in events]
        self.slots, self.earlier = [], [*self.earlier, *events]
        self._keep_earlier(NUM_EVENTS)

    def _keep_earlier(self, most: int) -> None:
        while len(self.earlier) > most:
            self._free.append(self.earlier.pop(0).snapshot)
