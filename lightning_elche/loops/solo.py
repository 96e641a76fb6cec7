"""A rank that saves without the others, since they hang or are gone."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from lightning.pytorch.strategies import Strategy
    from torch import Tensor

__all__ = ["solo"]

T = TypeVar("T")


@contextmanager
def solo(strategy: Strategy) -> Iterator[None]:
    """Let the collectives of a strategy answer with the value of this rank, and let it save."""
    own: dict[str, Any] = {
        "barrier": _barrier,
        "broadcast": _broadcast,
        "reduce": _reduce,
        "reduce_boolean_decision": _decide,
        "all_gather": _gather,
        "save_checkpoint": _saver_of(strategy),
    }
    before = {name: vars(strategy)[name] for name in own if name in vars(strategy)}
    vars(strategy).update(own)
    try:
        yield
    finally:
        for name in own:
            del vars(strategy)[name]
        vars(strategy).update(before)


def _barrier(*args: object, **kwargs: object) -> None:
    del args, kwargs


def _broadcast(obj: T, src: int = 0) -> T:
    del src
    return obj


def _reduce(tensor: T, *args: object, **kwargs: object) -> T:
    del args, kwargs
    return tensor


def _decide(decision: bool, all: bool = True) -> bool:
    del all
    return decision


def _gather(tensor: Tensor, *args: object, **kwargs: object) -> Tensor:
    del args, kwargs
    return tensor.unsqueeze(0)


def _saver_of(strategy: Strategy) -> Any:  # noqa: ANN401  # a method of the strategy
    def save(checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:  # noqa: ANN401
        strategy.checkpoint_io.save_checkpoint(checkpoint, path, storage_options=storage_options)

    return save
