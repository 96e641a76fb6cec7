"""Protocols between the strategy and what hooks into it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NoReturn, Protocol, runtime_checkable

if TYPE_CHECKING:
    from lightning_elche.control.events import AveragingEvent

__all__ = [
    "AbortSource",
    "FaultSink",
    "NeedsAlignment",
    "RecoverySource",
    "SavesOnRequest",
    "SubscribesToAverages",
]


@runtime_checkable
class SubscribesToAverages(Protocol):
    """A callback that wants to know of averaging events; a method of this name is enough."""

    def on_average_end(self, event: AveragingEvent) -> None:
        """Called on every rank after an averaging event, in the order of the callbacks."""
        ...


@runtime_checkable
class NeedsAlignment(Protocol):
    """A callback that may need all ranks at the same point after an averaging event."""

    def needs_alignment(self, event: AveragingEvent) -> bool:
        """Return whether something is due after `event`; the same on every rank."""
        ...


@runtime_checkable
class SavesOnRequest(Protocol):
    """A callback that saves checkpoints of its own kind when somebody asks for one."""

    def checkpoint(self, label: str | None = None, *, wait: bool = False) -> str:
        """Save now, and return the path; every rank calls this, aligned.

        Args:
            label: Tells what it is for.
            wait: Return once it is in its place.
        """
        ...


class AbortSource(Protocol):
    """Watches over the steps of one rank, and may want the run to be aborted.

    What it says is heard before parameters are averaged, so that none of a spoiled rank's are.
    """

    def pending_abort(self, *, settle: bool = False) -> int:
        """Return the exit code that the run should end with, 0 to let it go on.

        Args:
            settle: Wait for what the device has not computed yet; otherwise that may be told later.
        """
        ...

    def words(self) -> str:
        """Return the abort in words for the other ranks."""
        ...

    def raise_agreed(self, code: int, rank: int, words: str) -> NoReturn:
        """Raise the abort that all ranks have agreed on; called on every rank, in any thread.

        Args:
            code: The exit code.
            rank: The rank that wants it.
            words: What that rank said.
        """
        ...


class FaultSink(Protocol):
    """Hears of the batches of one rank that do not fit into memory."""

    def skipped(self, part: Literal["forward", "backward"], batches: int) -> None:
        """Take in that a batch was skipped.

        Args:
            part: Of its step, for which there was not enough memory.
            batches: Batches that were lost: it, and those whose accumulated gradients went with it.
        """
        ...

    def learnt(self) -> None:
        """Take in that a batch was not skipped."""
        ...


class RecoverySource(Protocol):
    """Undoes what has spoiled the parameters of a rank."""

    def settle(self) -> None:
        """Repair what is spoiled, before this rank hands in its parameters and says what it weighs.

        Called in the training thread between two steps; `forget` and `sit_out` of the strategy
        count for the average that follows.
        """
        ...

    def restorable_event(self) -> int:
        """Return the latest event whose outcome this rank can restore, -1 for none.

        Only after an event for which `is_aligned` and `crossed_nodes` are set do all ranks hold the
        same parameters.
        """
        ...

    def restore_event(self, index: int) -> None:
        """Go back to the outcome of an event, as all ranks do now.

        Args:
            index: One that every rank can restore, the latest.
        """
        ...

    def restore_saved(self) -> bool:
        """Go back to a checkpoint, as all ranks do now, and return whether that was possible.

        Called where there is no event that every rank can restore.
        """
        ...

    def halt(self, reason: str) -> None:
        """End the run, since the ranks have nothing in common to go back to.

        Raises, or asks for a stop, after which it is not called again.

        Args:
            reason: In words; equal on every rank.
        """
        ...
