"""In which order each task meets the others: drawn anew for every step, equal on every rank."""

from __future__ import annotations

from hashlib import blake2b
from struct import pack

import torch

__all__ = ["step_generator"]


def step_generator(seed: int, step: int, micro: int = 0) -> torch.Generator:
    """Return a generator on the CPU that depends on nothing but the arguments.

    No global generator is read or moved.

    Args:
        seed: Of the run.
        step: The optimizer step.
        micro: The batch within the step, where several are accumulated.

    Example:
        >>> import torch
        >>> torch.randperm(4, generator=step_generator(0, 7)).tolist()
        [3, 2, 0, 1]
    """
    # Hashed, because step 1 of seed 0 must not have the order of step 0 of seed 1.
    digest = blake2b(pack("<qqq", seed, step, micro), digest_size=8).digest()
    return torch.Generator("cpu").manual_seed(int.from_bytes(digest, "little") >> 1)
