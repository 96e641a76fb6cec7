"""The order of batches: equal each time an epoch is trained, and begun where it was left."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, Protocol, TypedDict, runtime_checkable

import torch
from torch.utils.data import DataLoader, DistributedSampler, IterableDataset, Sampler

from lightning_elche.loops.lightning_names import epoch_of
from lightning_elche.ops.random_state import random_state, set_random_state
from lightning_elche.ops.seeding import mix, seed_all, seed_of_batch

if TYPE_CHECKING:
    from lightning.pytorch import Trainer

__all__ = ["EpochPosition", "Order", "Resumable"]

END = object()

# Keep the seeds of orders, of workers and of loaded batches apart from those of steps.
ORDERS, WORKERS, LOADS = 0x6F72646572, 0x776F726B657273, 0x6C6F616473


class EpochPosition(TypedDict):
    """How far a rank has come in its epoch.

    Attributes:
        epoch: The epoch whose order is in use.
        position: Batches of it that are trained; all of them once it is over.
    """

    epoch: int
    position: int


@runtime_checkable
class Resumable(Protocol):
    """A loader that Lightning asks for its state, and hands it back."""

    def state_dict(self) -> dict[str, Any]:
        """Return the state."""
        ...

    def load_state_dict(self, state_dict: dict[str, Any], /) -> None:
        """Continue from a state."""
        ...


class Order:
    """Makes training loaders repeatable.

    Args:
        trainer: Trains with them.
        base: The seed of the run.
        seeds_loads: Seed the generators before each batch that this process loads, so that what
            is drawn for it depends on nothing else.
        resumed: Where to begin.
    """

    def __init__(
        self, trainer: Trainer, *, base: int, seeds_loads: bool, resumed: EpochPosition | None
    ) -> None:
        self._trainer = trainer
        self._base = base
        self._seeds_loads = seeds_loads
        self._resumed = resumed
        self._epoch = resumed["epoch"] if resumed else 0
        self.has_workers = False

    @property
    def sampler_seed(self) -> int:
        """The seed of samplers that add the epoch to it; in a run that was seeded its own."""
        return self._base & ((1 << 62) - 1)

    @property
    def position(self) -> EpochPosition:
        """Where this rank is."""
        progress: Any = self._trainer.fit_loop.epoch_loop.batch_progress.current
        trained = int(progress.processed)
        return {"epoch": self._epoch, "position": trained}

    def repeatable(self, loader: Any) -> Any:  # noqa: ANN401  # whatever Lightning can iterate
        """Return a copy of `loader` that is repeatable; one that keeps its own state as it is."""
        if isinstance(loader, Resumable):
            return loader
        if not isinstance(loader, DataLoader):
            return _Repeatable(loader, self)
        self.has_workers |= loader.num_workers > 0
        return _copy_of(loader, self)

    def rest(
        self, batches: Iterable[Any], *generators: torch.Generator, are_loaded: bool
    ) -> Iterator[Any]:
        """Yield what is left of an epoch.

        Args:
            batches: All of it. The order is drawn, at the latest, when the first is asked for.
            generators: Those that draw it, beside the global ones.
            are_loaded: Whether asking for one loads it; else it is loaded once it is yielded.
        """
        epoch = self._epoch = epoch_of(self._trainer)
        resumed, self._resumed = self._resumed, None
        left_out = resumed["position"] if resumed and resumed["epoch"] == epoch else 0
        seed = mix(self._base ^ mix(ORDERS ^ (epoch << 48)))  # the same on all ranks
        for generator in generators:
            generator.manual_seed(seed)
        with self._apart():
            seed_all(seed)
            iterator = iter(batches)
            batch = next(iterator, END)
        number = 0
        self._seed_load(epoch, number)
        while batch is not END:
            if number >= left_out:
                yield batch
            number += 1
            if are_loaded or number >= left_out:
                self._seed_load(epoch, number)
            batch = next(iterator, END)

    def worker_generator(self) -> torch.Generator:
        """Return the generator from which the workers of this rank get their seeds."""
        epoch = epoch_of(self._trainer)
        own, rank = mix(self._base ^ WORKERS), self._trainer.global_rank
        return torch.Generator().manual_seed(seed_of_batch(own, rank=rank, number=epoch))

    def _seed_load(self, epoch: int, number: int) -> None:
        if self._seeds_loads and not self.has_workers:
            own, rank = mix(self._base ^ mix(LOADS ^ (epoch << 48))), self._trainer.global_rank
            seed_all(seed_of_batch(own, rank=rank, number=number))

    @contextlib.contextmanager
    def _apart(self) -> Iterator[None]:
        """Leave the global generators as they were."""
        device = self._trainer.strategy.root_device
        state = random_state(device)
        try:
            yield
        finally:
            set_random_state(state, device)


class _Indices(Sampler[Any]):
    """The indices of what is left of an epoch; its length is that of a whole one.

    Args:
        batches: The batch sampler of the user, or the sampler where batching is disabled.
        order: Knows what is left.
        generators: Draw the order.
    """

    def __init__(self, batches: Any, order: Order, *generators: torch.Generator) -> None:  # noqa: ANN401
        self._batches = batches
        self._order = order
        self._generators = generators

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401  # such as the sampler, for its epoch
        return getattr(vars(self)["_batches"], name)

    def __len__(self) -> int:
        return len(self._batches)

    def __iter__(self) -> Iterator[Any]:
        return self._order.rest(self._batches, *self._generators, are_loaded=False)


class _Repeatable:
    """Batches without an index; those that were trained are loaded and dropped."""

    def __init__(self, batches: Any, order: Order) -> None:  # noqa: ANN401
        self._batches = batches
        self._order = order

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401  # as the user's own has it
        return getattr(vars(self)["_batches"], name)

    def __len__(self) -> int:
        return len(self._batches)  # its `TypeError` says that there is none

    def __iter__(self) -> Iterator[Any]:
        return self._order.rest(self._batches, are_loaded=True)

    def state_dict(self) -> dict[str, Any]:
        """Return the state, for Lightning, which else warns."""
        return dict(self._order.position)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Do nothing: the callback has handed the state to the order."""


def _copy_of(loader: DataLoader[Any], order: Order) -> DataLoader[Any]:
    """Return a copy, of a subclass of the loader's own class, whose iteration begins late.

    Lightning calls `iter` before it has restored its counts, and before `set_epoch`; the iterator
    of a loader with workers asks for the first indices at once.
    """
    kind = type(loader)
    is_indexed = not isinstance(loader.dataset, IterableDataset)

    def iterate(own: DataLoader[Any]) -> Iterator[Any]:
        object.__setattr__(own, "generator", order.worker_generator())
        if is_indexed:
            yield from kind.__iter__(own)
        else:
            yield from order.rest(_Stock(own, kind), are_loaded=True)

    methods = {
        "__iter__": iterate,
        "state_dict": lambda _: dict(order.position),  # see `_Repeatable`
        "load_state_dict": lambda *_: None,
    }
    copied = copy.copy(loader)
    copied._iterator = None  # that of the loader has workers of its own
    if is_indexed:
        for sampler in _samplers_of(loader):
            if isinstance(sampler, DistributedSampler):
                sampler.seed = order.sampler_seed  # else that of this process
        name = "sampler" if loader.batch_sampler is None else "batch_sampler"
        indices = _Indices(getattr(loader, name), order, *_generators_of(loader))
        # A DataLoader forbids to set its samplers; a copy that was not iterated may get others.
        object.__setattr__(copied, name, indices)
    object.__setattr__(copied, "__class__", type(kind.__name__, (kind,), methods))
    return copied


class _Stock:
    """A loader iterated as its own class does it."""

    def __init__(self, loader: DataLoader[Any], kind: type[DataLoader[Any]]) -> None:
        self._loader, self._kind = loader, kind

    def __iter__(self) -> Iterator[Any]:
        return self._kind.__iter__(self._loader)


def _samplers_of(loader: DataLoader[Any]) -> list[object]:
    batches = loader.batch_sampler
    return [batches, loader.sampler, getattr(batches, "sampler", None)]


def _generators_of(loader: DataLoader[Any]) -> list[torch.Generator]:
    found = [loader.generator, *(getattr(one, "generator", None) for one in _samplers_of(loader))]
    return list({id(one): one for one in found if isinstance(one, torch.Generator)}.values())
