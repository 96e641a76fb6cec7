"""The states of all generators of random numbers that training draws from."""

from __future__ import annotations

import random
import sys
from typing import Any

import torch

__all__ = ["random_state", "set_random_state"]


def random_state(device: torch.device) -> dict[str, Any]:
    """Return the states of Python, numpy if it was imported, PyTorch, and a CUDA device.

    Args:
        device: The one that trains.
    """
    numpy = sys.modules.get("numpy")
    return {
        "python": random.getstate(),
        "numpy": None if numpy is None else numpy.random.get_state(),
        "torch": torch.get_rng_state().numpy(),
        "cuda": torch.cuda.get_rng_state(device).numpy() if device.type == "cuda" else None,
    }


def set_random_state(state: dict[str, Any], device: torch.device) -> None:
    """Continue from what `random_state` returned."""
    random.setstate(state["python"])
    if state["numpy"] is not None:
        sys.modules["numpy"].random.set_state(state["numpy"])
    torch.set_rng_state(torch.from_numpy(state["torch"]))
    if state["cuda"] is not None:
        torch.cuda.set_rng_state(torch.from_numpy(state["cuda"]), device)
