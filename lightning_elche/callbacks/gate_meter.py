"""Measures optimizer steps: loss, gradient norm, learning rate, tokens, time."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lightning_elche.ops.grad_norm import total_norm

__all__ = ["StepMeter", "StepReading", "count_tokens"]


@dataclass(slots=True)  # not frozen, which would take longer to make than all else
class StepReading:
    """What one optimizer step was like.

    Attributes:
        train_loss: Mean loss of its batches.
        grad_norm: L2 norm of the gradients of all optimizers, before clipping.
        lr: Learning rate of the first optimizer's first group.
        tokens: Tokens in its batches.
        wall_s: From the begin of its first batch to the end of its last.
        epoch: The epoch.
    """

    train_loss: float
    grad_norm: float
    lr: float
    tokens: int
    wall_s: float
    epoch: int

    def read(self) -> StepReading:
        """Return the reading itself, there being nothing to wait for."""
        return self


class StepMeter:
    """Takes notes of one step at a time; a step has one batch, or several that are accumulated.

    Args:
        num_tokens: Returns the number of tokens in a batch.
        clip_norm: Clip gradients to this norm when theirs is taken.
        clock: Monotonic seconds.
    """

    def __init__(
        self,
        *,
        num_tokens: Callable[[Any], int],
        clip_norm: float | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._num_tokens = num_tokens
        self._clip_norm = clip_norm
        self._clock = clock
        self._queue: deque[StepReading | _Unread] = deque()
        self._reset()

    def _reset(self) -> None:
        self._losses: list[Tensor] = []
        self._norms: list[Tensor] = []
        self._numbers: tuple[float, float] | None = None  # loss and norm, if they were read
        self._lr = 0.0
        self._tokens = 0
        self._began: float | None = None

    def begin_batch(self, batch: Any) -> None:  # noqa: ANN401  # whatever the DataLoader yields
        """Take note of a batch that is about to be trained."""
        if self._began is None:
            self._began = self._clock()
        self._tokens += self._num_tokens(batch)

    def add_loss(self, loss: Tensor, *, factor: float = 1.0) -> None:
        """Take note of the loss of a backward pass.

        Args:
            loss: A scalar.
            factor: Undoes what the loss was multiplied by for the sake of the gradients.
        """
        loss = loss.detach()
        self._numbers = None
        self._losses.append(loss if factor == 1.0 else loss * factor)

    def add_optimizer(self, optimizer: torch.optim.Optimizer) -> None:
        """Take note of the gradients of an optimizer that is about to step."""
        if not self._norms:
            self._lr = float(optimizer.param_groups[0]["lr"])
        self._numbers = None
        self._norms.append(total_norm(optimizer, clip_norm=self._clip_norm))

    def peek(self) -> tuple[float, float, float]:
        """Return loss, gradient norm and learning rate of the present step, once computed."""
        if self._numbers is None:
            self._numbers = float(self._mean_loss()), float(self._norm())
        return *self._numbers, self._lr

    def end_batch(self, *, epoch: int) -> None:
        """Take note of the end of a batch, which ends the step if an optimizer was in it."""
        if not self._norms or not self._losses or self._began is None:
            return
        wall_s = self._clock() - self._began
        if self._losses[0].device.type == "cuda":
            numbers = _OnTheWay(self._mean_loss(), self._norm())
            self._queue.append(_Unread(numbers, self._lr, self._tokens, wall_s, epoch))
        else:
            self._queue.append(StepReading(*self.peek(), self._tokens, wall_s, epoch))
        self._reset()

    def readings(self, *, newest: bool) -> list[StepReading]:
        """Return the steps that are over, each once.

        Args:
            newest: Include the last one, for which the device may have to be waited for.
        """
        num_ready = len(self._queue) - (0 if newest else 1)
        return [self._queue.popleft().read() for _ in range(num_ready)]

    def _mean_loss(self) -> Tensor:
        losses = self._losses
        return losses[0] if len(losses) == 1 else torch.stack(losses).mean()

    def _norm(self) -> Tensor:
        norms = self._norms
        return norms[0] if len(norms) == 1 else torch.linalg.vector_norm(torch.stack(norms))


@dataclass(slots=True)
class _Unread:
    """A step whose numbers may still be on their way from the device."""

    numbers: _OnTheWay
    lr: float
    tokens: int
    wall_s: float
    epoch: int

    def read(self) -> StepReading:
        loss, norm = self.numbers.wait()
        return StepReading(loss, norm, self.lr, self.tokens, self.wall_s, self.epoch)


class _OnTheWay:
    """Two numbers that the device has yet to compute, and copies to page-locked memory then."""

    def __init__(self, loss: Tensor, norm: Tensor) -> None:
        both = torch.stack((loss.float().reshape(()), norm.float().to(loss.device).reshape(())))
        self._host = torch.empty(2, dtype=torch.float32, pin_memory=True)
        self._host.copy_(both, non_blocking=True)
        self._event = torch.cuda.Event()  # type: ignore[no-untyped-call]
        self._event.record()

    def wait(self) -> tuple[float, float]:
        self._event.synchronize()
        loss, norm = self._host.tolist()
        return loss, norm


def count_tokens(batch: Any) -> int:  # noqa: ANN401  # whatever the DataLoader yields
    """Return the elements of `batch["input_ids"]`, else the leading size of the first tensor."""
    if isinstance(batch, dict) and isinstance(batch.get("input_ids"), Tensor):
        return int(batch["input_ids"].numel())
    tensor = _first_tensor(batch)
    return 0 if tensor is None else tensor.size(0) if tensor.ndim else 1


def _first_tensor(batch: Any) -> Tensor | None:  # noqa: ANN401
    if isinstance(batch, Tensor):
        return batch
    parts = batch.values() if isinstance(batch, dict) else batch
    for part in parts if isinstance(batch, (dict, list, tuple)) else ():
        tensor = _first_tensor(part)
        if tensor is not None:
            return tensor
    return None
