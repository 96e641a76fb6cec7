"""Which parameters a loss reaches, read off its graph before any backward pass."""

from __future__ import annotations

from typing import Any, NamedTuple

from torch import Tensor

__all__ = ["Reach", "search_graph"]

REENTRANT = "CheckpointFunctionBackward"
COMPILED = "CompiledFunctionBackward"


class Reach(NamedTuple):
    """Where the graph of a loss leads to.

    Attributes:
        leaves: The `id` of every leaf tensor in it.
        is_compiled: Whether a part was compiled, which gives zeros instead of no gradient.
    """

    leaves: set[int]
    is_compiled: bool


def search_graph(loss: Tensor) -> Reach:
    """Return where the graph of `loss` leads to.

    O(nodes of the graph), in Python: meant for the first step, not for every one. What the graph
    leads to may get no gradient all the same.

    Raises:
        RuntimeError: If a part of the graph is hidden by reentrant checkpointing.
    """
    if loss.is_leaf:
        return Reach({id(loss)}, False)
    leaves: set[int] = set()
    is_compiled = False
    ahead: list[Any] = [loss.grad_fn]
    seen = set(ahead)
    while ahead:
        node = ahead.pop()
        if node.name() == REENTRANT:
            raise RuntimeError(
                "`use_reentrant` of torch.utils.checkpoint must be False with several losses, got "
                "True: the gradient of a single loss would lack every parameter inside."
            )
        is_compiled |= node.name() == COMPILED
        variable = getattr(node, "variable", None)
        if variable is not None:
            leaves.add(id(variable))
        for following, _ in node.next_functions:
            if following is not None and following not in seen:
                seen.add(following)
                ahead.append(following)
    return Reach(leaves, is_compiled)
