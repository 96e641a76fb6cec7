"""PCGrad in plain Python, as it was published."""

from __future__ import annotations

import torch

from lightning_elche.ops.order import step_generator

__all__ = ["Vector", "dot", "orders_of", "published"]

Vector = list[float]


def dot(first: Vector, second: Vector) -> float:
    return sum(a * b for a, b in zip(first, second, strict=True))


def published(grads: list[Vector], orders: list[list[int]]) -> Vector:
    """Algorithm 1 of arXiv 2001.06782, word by word, on the vectors themselves."""
    total = [0.0] * len(grads[0])
    for task, order in enumerate(orders):
        projected = grads[task]
        for other in order:
            product = dot(projected, grads[other])
            if other != task and product < 0.0:
                factor = product / dot(grads[other], grads[other])
                projected = [p - factor * g for p, g in zip(projected, grads[other], strict=True)]
        total = [t + p for t, p in zip(total, projected, strict=True)]
    return total


def orders_of(num_tasks: int, step: int) -> list[list[int]]:
    generator = step_generator(0, step)
    return [torch.randperm(num_tasks, generator=generator).tolist() for _ in range(num_tasks)]
