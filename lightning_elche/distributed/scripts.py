"""What decides when ranks meet and who gets which batch: the clock, or the record of a run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

from typing_extensions import override

from lightning_elche.control.reports import Report
from lightning_elche.control.schedule_record import (
    RecordedEvent,
    ScheduleRecord,
    deal_line,
    event_line,
    header_line,
    merged,
    parse_record,
)
from lightning_elche.exceptions import ScheduleDiverged

__all__ = ["FollowedScript", "RecordingScript", "Script", "script_name"]


class Script:
    """Leaves everything to the clock."""

    is_followed = False

    def batches_of(self, epoch: int) -> Sequence[int] | None:
        """Return the batches of an epoch that this rank gets; `None`: those that it claims."""
        del epoch
        return None

    def may_deal_ahead(self, epoch: int) -> bool | None:
        """Return whether a batch of the next epoch is dealt in this one; `None`: see the plan."""
        del epoch
        return None

    def dealt(self, present: int, epoch: int, index: int) -> None:
        """Take in that a batch of `epoch` was dealt in the epoch `present`."""

    def is_due(self, index: int, batches: int) -> bool:
        """Return whether this rank enters an event, which it knows only if it follows a record.

        Args:
            index: Number of the event.
            batches: What this rank has trained in the window.
        """
        raise NotImplementedError

    def is_applied(self, index: int, batches: int) -> bool:
        """Return whether this rank takes the average of an event that it has entered.

        Args:
            index: As of `is_due`.
            batches: As of `is_due`.
        """
        raise NotImplementedError

    def event(self, index: int, applied_after: int, reports: Sequence[Report]) -> list[Report]:
        """Take in an event, and return the reports that count.

        Args:
            index: Number of the event.
            applied_after: As of `RecordedEvent`.
            reports: Those of all ranks.

        Raises:
            ScheduleDiverged: If a record is followed, and it tells of something else.
            ValueError: If it ends before.
        """
        del index, applied_after
        return list(reports)

    def close(self) -> None:
        """Let go of files."""


class RecordingScript(Script):
    """Leaves everything to the clock, and writes down what has come of it.

    What was dealt is written with the next event, in whole lines.

    Args:
        folder: Of the records of all ranks; made if it is not there.
        rank: This rank.
        world_size: Number of ranks.

    Raises:
        FileExistsError: If this rank has a record there.
    """

    def __init__(self, folder: Path, *, rank: int, world_size: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / script_name(rank)
        if path.exists():
            raise FileExistsError(f"`folder` must be without the record of a run, got {path}.")
        self._file = path.open("w", encoding="utf-8")
        self._lines = [header_line(rank=rank, world_size=world_size)]
        self._flush()

    @override
    def dealt(self, present: int, epoch: int, index: int) -> None:
        self._lines.append(deal_line(present, epoch, index))

    @override
    def event(self, index: int, applied_after: int, reports: Sequence[Report]) -> list[Report]:
        event = RecordedEvent(index=index, applied_after=applied_after, reports=tuple(reports))
        self._lines.append(event_line(event))
        self._flush()
        return list(reports)

    @override
    def close(self) -> None:
        if not self._file.closed:
            self._flush()
            self._file.close()

    def _flush(self) -> None:
        self._file.write("".join(f"{line}\n" for line in self._lines))
        self._file.flush()
        self._lines.clear()


class FollowedScript(Script):
    """Does as a record says, however fast this rank is today.

    Args:
        folder: Of the records of all ranks.
        rank: This rank.
        world_size: Number of ranks.
        on_difference: As of `merged`.

    Raises:
        OSError: If the record of this rank cannot be read.
        ValueError: If it is none, or of another number of ranks.
    """

    is_followed = True

    def __init__(
        self,
        folder: Path,
        *,
        rank: int,
        world_size: int,
        on_difference: Callable[[ScheduleDiverged], object] | None = None,
    ) -> None:
        self._on_difference = on_difference
        self._path = folder / script_name(rank)
        self._rank = rank
        self._record = self._read()
        if (self._record.rank, self._record.world_size) != (rank, world_size):
            raise ValueError(
                f"{self._path} must be of rank {rank} of {world_size}, got rank "
                f"{self._record.rank} of {self._record.world_size}. Use as many ranks as then."
            )
        self._num_ahead: Counter[int] = Counter()

    @override
    def batches_of(self, epoch: int) -> Sequence[int]:
        return list(self._record.batches.get(epoch, ()))

    @override
    def may_deal_ahead(self, epoch: int) -> bool:
        return self._num_ahead[epoch] < self._record.num_ahead[epoch]

    @override
    def dealt(self, present: int, epoch: int, index: int) -> None:
        self._num_ahead[present] += epoch != present

    @override
    def is_due(self, index: int, batches: int) -> bool:
        return batches >= self._at(index).reports[self._rank].batches

    @override
    def is_applied(self, index: int, batches: int) -> bool:
        return batches >= self._at(index).applied_after

    @override
    def event(self, index: int, applied_after: int, reports: Sequence[Report]) -> list[Report]:
        return merged(self._at(index), reports, on_difference=self._on_difference)

    def _at(self, index: int) -> RecordedEvent:
        if index not in self._record.events:
            raise ValueError(f"{self._path} ends before averaging event {index}.")
        return self._record.events[index]

    def _read(self) -> ScheduleRecord:
        with self._path.open(encoding="utf-8") as file:
            try:
                return parse_record(file)
            except ValueError as err:
                raise ValueError(f"{self._path} {err}.") from err


def script_name(rank: int) -> str:
    """Return the name of the record of a rank."""
    return f"schedule.rank{rank}.jsonl"
