"""Options of the outer optimizer, which makes a step of what the ranks did in a window."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["OuterOptimizer"]


@dataclass(frozen=True, kw_only=True)
class OuterOptimizer:
    """SGD on the averaged movement of the replicas, as in DiLoCo (arXiv 2311.08105).

    At an averaging event, `last - average` is taken for a gradient, where `last` is what all ranks
    started the window from; one step of SGD on it gives what they start the next one from. Momentum
    follows the convention of `torch.optim.SGD`: `v = momentum * v + gradient`, and the step is
    `lr * v`, or `lr * (gradient + momentum * v)` with Nesterov's look-ahead. `lr=1, momentum=0` is
    plain averaging. Buffers are averaged plainly.

    The published values, which are the defaults, were found with long windows on language models.
    In the long run they move seven times as far as the replicas did, and a small multi-layer
    perceptron diverged to chance with them, while momentum 0 was fine: start from `momentum=0`, and
    compare.

    Args:
        lr: Learning rate of the outer step, above 0.
        momentum: How much of the previous movement is kept, from 0 to below 1.
        nesterov: Look ahead along the momentum; without momentum there is nothing to look along.

    Example:
        >>> OuterOptimizer(lr=1.0, momentum=0.0)
        OuterOptimizer(lr=1.0, momentum=0.0, nesterov=True)
    """

    lr: float = 0.7
    momentum: float = 0.9
    nesterov: bool = True

    def __post_init__(self) -> None:
        """Validate."""
        if not 0.0 < self.lr < float("inf"):
            raise ValueError(f"`lr` must be a positive number, got {self.lr}.")
        if not 0.0 <= self.momentum < 1.0:
            raise ValueError(f"`momentum` must be in [0, 1), got {self.momentum}.")
