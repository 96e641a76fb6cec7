"""Deals an epoch's batches to this rank, chunk by chunk."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from lightning_elche.control.chunks import ChunkConfig
from lightning_elche.control.overshoot import may_look_ahead
from lightning_elche.control.schedule import Plan
from lightning_elche.data.epoch_books import EpochBooks
from lightning_elche.data.epoch_progress import EpochProgress, indices_of
from lightning_elche.distributed.control_store import ControlStore
from lightning_elche.distributed.scripts import Script

__all__ = ["Consumed", "Dealer"]

MAX_OFFERED = 32


class Consumed(NamedTuple):
    """A batch that was trained.

    Attributes:
        samples: Samples in it.
        is_ahead: Whether it belongs to the next epoch.
        is_redealt: Whether another rank was given it before, and has skipped it.
    """

    samples: int
    is_ahead: bool
    is_redealt: bool = False


class Dealer:
    """Hands out the batches that this rank claims, and keeps the books on them.

    Every rank evaluates the same batch list; a digest of it is compared when an epoch opens.
    DataLoader workers ask for batches ahead of time, so that a claimed batch is not yet a consumed
    one. A rank that is out of work may be dealt single batches of the next epoch.

    Args:
        store: The run's control store.
        config: How to deal.
        rank: This rank.
        plan: Returns the agreed plan.
        limit: Maps the number of batches in the epoch to the number to deal.
        steps: Returns this rank's steps since the last averaging event.
        may_open: Returns whether the epoch of this index may be dealt ahead of its time.
        script: May say what was dealt in another run.

    Attributes:
        redeals: Whether batches that another rank has skipped are dealt to this one.
    """

    def __init__(
        self,
        store: ControlStore,
        *,
        config: ChunkConfig,
        rank: int,
        plan: Callable[[], Plan],
        limit: Callable[[int], int],
        steps: Callable[[], int] = lambda: 0,
        may_open: Callable[[int], bool] = lambda _: False,
        script: Script | None = None,
    ) -> None:
        self._store = store
        self._config = config
        self._rank = rank
        self._plan = plan
        self._limit = limit
        self._steps = steps
        self._may_open = may_open
        self._script = script or Script()
        self._present: EpochBooks | None = None
        self._next: EpochBooks | None = None
        self._in_flight: deque[tuple[EpochBooks, int]] = deque()  # given out, not consumed
        self._consumed: deque[tuple[EpochBooks, int]] = deque(maxlen=MAX_OFFERED)
        self.redeals = False
        self._restored: EpochProgress | None = None
        self._num_restored = 0

    @property
    def total(self) -> int:
        """Batches that all ranks together train in this epoch."""
        return self._opened().total

    @property
    def available(self) -> int:
        """Batches in this epoch before any limit."""
        return len(self._opened().batches)

    @property
    def is_finished(self) -> bool:
        """Whether this rank has trained all that it ever gets of this epoch."""
        present = self._opened()
        has_in_flight = bool(self._in_flight) and self._in_flight[0][0] is present
        return present.is_closed and not present.queue and not has_in_flight

    @property
    def trained_before(self) -> int:
        """Batches of this epoch that all ranks had trained when it was opened."""
        return self._opened().trained_before

    def restored_steps(self, epoch: int) -> int | None:
        """Return the optimizer steps made in `epoch` before a resume, `None` without one."""
        restored = self._restored
        return restored["steps"] if restored and restored["epoch"] == epoch else None

    def restore(self, progress: EpochProgress) -> None:
        """Go on from a checkpoint: what is open is dropped, and `open` must come again.

        Args:
            progress: The batches that are not dealt again.
        """
        self._restored = progress
        self._num_restored += 1
        self._present = self._next = None
        self._in_flight.clear()

    def untrained(self) -> list[int]:
        """Return the positions of this epoch's batches that this rank knows not to be trained."""
        present = self._opened()
        return present.untrained(index for books, index in self._in_flight if books is present)

    def trained_ahead(self) -> list[int]:
        """Return the positions of the next epoch's batches that this rank knows to be trained."""
        own = self._next.trained_ahead if self._next is not None else []
        return [*own, *self._trained_of(self._opened().epoch + 1)]

    @property
    def epoch(self) -> int:
        """Index of the epoch that is being dealt."""
        return self._opened().epoch

    @property
    def digest(self) -> str:
        """Names the list of this epoch's batches."""
        return self._opened().digest

    def is_open(self, epoch: int) -> bool:
        """Return whether `epoch` is the one being dealt."""
        return self._present is not None and epoch == self._present.epoch

    def open(self, epoch: int, batches: Iterable[Any]) -> None:
        """Start a new epoch, with the books that were kept on it ahead of its time.

        Args:
            epoch: Its index.
            batches: What the user's batch sampler yields in this epoch, equal on every rank. Not
                evaluated again if batches of the epoch were dealt already.

        Raises:
            RankMismatch: If another rank has another list.
            ValueError: If there are fewer batches than ranks, or other ones than in the checkpoint.
        """
        is_known = self._next is not None and self._next.epoch == epoch
        present = self._next if is_known else None
        self._present = present = present or self._books(epoch, batches)
        self._next = None
        self._in_flight = deque(entry for entry in self._in_flight if entry[0] is present)
        self._check_restored(present)
        present.begin()

    def deal(self, batches_of: Callable[[int], Iterable[Any]] | None = None) -> Iterator[Any]:
        """Yield this rank's batches; iterating again starts with what was not consumed.

        Args:
            batches_of: Returns what the user's batch sampler yields in the epoch of an index; for
                batches of the next epoch. `None`: the batches of this epoch only.
        """
        for books, index in reversed(self._in_flight):
            books.queue.appendleft(index)
        self._in_flight.clear()
        while (source := self._source(batches_of)) is not None:
            index = source.queue.popleft()
            self._in_flight.append((source, index))
            self._script.dealt(self._opened().epoch, source.epoch, index)
            yield source.batches[index]

    def consume(self) -> Consumed:
        """Record that the oldest batch in flight was trained."""
        books, index = self._in_flight.popleft()
        self._consumed.append((books, index))
        batch = books.batches[index]
        samples = len(batch) if isinstance(batch, Sequence) else 1
        is_ahead = books is not self._present
        if is_ahead:
            books.trained_ahead.append(index)
        is_redealt = index in books.redealing.taken
        return Consumed(samples, is_ahead=is_ahead, is_redealt=is_redealt)

    def offer(self, batches: int) -> None:
        """Let another rank train the latest batches of this epoch, which this one has skipped.

        Args:
            batches: How many, 32 at most; the one in flight that is trained now is the latest.
        """
        latest = [*self._consumed, self._in_flight[0]]
        for books, index in latest[-batches:] if batches else ():
            if self.redeals and books is self._present:
                books.redealing.offer(index)

    def _source(self, batches_of: Callable[[int], Iterable[Any]] | None) -> EpochBooks | None:
        """Return the books with the batch to be given out, `None` if there is none."""
        present = self._opened()
        if present.queue:  # the plan is needed for claims only
            return present
        if self.redeals and present.has_redealt_batch():
            return present
        plan = self._plan()
        if present.has_batch(plan, in_flight=len(self._in_flight)):
            return present
        if batches_of is None or not self._may_look_ahead(plan, present.epoch + 1):
            return None
        if self._next is None:
            self._next = self._books(present.epoch + 1, batches_of(present.epoch + 1))
        return self._next if self._next.has_batch_ahead() else None

    def _may_look_ahead(self, plan: Plan, epoch: int) -> bool:
        as_then = self._script.may_deal_ahead(epoch - 1)
        if as_then is not None:
            return as_then
        in_flight = len(self._in_flight)
        is_within = may_look_ahead(plan, self._rank, steps=self._steps(), in_flight=in_flight)
        return is_within and self._may_open(epoch)

    def _books(self, epoch: int, batches: Iterable[Any]) -> EpochBooks:
        return EpochBooks(
            epoch,
            batches,
            store=self._store,
            config=self._config,
            rank=self._rank,
            plan=self._plan(),
            limit=self._limit,
            trained=self._trained_of(epoch),
            name=f"{epoch}/{self._num_restored}",
            part=self._script.batches_of(epoch),
        )

    def _trained_of(self, epoch: int) -> set[int]:
        restored = self._restored
        if restored is None or not 0 <= epoch - restored["epoch"] <= 1:
            return set()
        return indices_of(restored["trained" if epoch == restored["epoch"] else "ahead"])

    def _check_restored(self, present: EpochBooks) -> None:
        restored = self._restored
        if restored is None or restored["epoch"] != present.epoch:
            return
        if restored["digest"] != present.digest_of(restored["total"]):
            raise ValueError(
                f"`ckpt_path` was saved within epoch {present.epoch}, but the sampler yields other "
                "batches in it than then, so that nobody knows which were trained. Use the same "
                "data, batch size and seed (`seed_everything`), or a checkpoint from the end of an "
                "epoch."
            )

    def _opened(self) -> EpochBooks:
        if self._present is None:
            raise RuntimeError("`open` must come first: no epoch is being dealt.")
        return self._present
