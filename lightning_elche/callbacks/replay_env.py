"""What the numbers of a run depend on besides its code, its data and its seeds."""

from __future__ import annotations

import platform
from importlib.metadata import version
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from lightning.pytorch import Trainer

__all__ = ["Env", "run_env"]

Env = dict[str, str | int | bool | None]


def run_env(trainer: Trainer) -> Env:
    """Return versions, device and settings of this rank; JSON-serialisable."""
    return {
        "torch": str(torch.__version__),
        "cuda": torch.version.cuda,
        "lightning": version("lightning"),
        "python": platform.python_version(),
        "device": _device(trainer.strategy.root_device),
        "threads": torch.get_num_threads(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "cudnn_deterministic": torch.backends.cudnn.deterministic,
        "cudnn_benchmark": torch.backends.cudnn.benchmark,
        "float32_matmul_precision": torch.get_float32_matmul_precision(),
        "world": trainer.world_size,
        "precision": str(trainer.precision),
    }


def _device(device: torch.device) -> str:
    if device.type == "cuda":
        return f"cuda {torch.cuda.get_device_name(device)}"
    if device.type == "cpu":  # kernels differ by what it can do
        return f"cpu {platform.machine()} {torch.backends.cpu.get_cpu_capability()}"
    return device.type
