"""Seeds that follow from a base and a place, so that nothing need be kept to draw them again."""

from __future__ import annotations

import random
import sys

import torch

__all__ = ["mix", "seed_all", "seed_of_batch"]

MASK = (1 << 64) - 1


def mix(z: int) -> int:
    """Return 64 bits that all depend on all bits of `z` (the finaliser of splitmix64)."""
    z &= MASK
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
    return z ^ (z >> 31)


def seed_of_batch(base: int, *, rank: int, number: int) -> int:
    """Return the seed of a batch of a rank.

    Args:
        base: That of the run.
        rank: The rank.
        number: Batches that the rank has trained before.

    Example:
        >>> seed_of_batch(7, rank=0, number=3) == seed_of_batch(7, rank=1, number=3)
        False
    """
    return mix(base ^ mix((rank << 32) ^ number))


def seed_all(seed: int) -> None:
    """Seed Python, numpy if it was imported, PyTorch and its CUDA devices.

    Args:
        seed: 64 bits; numpy takes the lower 32.
    """
    random.seed(seed)
    numpy = sys.modules.get("numpy")
    if numpy is not None:
        numpy.random.seed(seed & 0xFFFFFFFF)
    torch.manual_seed(seed)
