"""What the driver says of a GPU, in percent."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import torch

__all__ = ["gpu_signal", "nvml_signal"]


def gpu_signal(device: torch.device, signal: str) -> Callable[[], float] | None:
    """Return what reads a number of a device; `None` if that is no CUDA device.

    Args:
        device: Of this rank.
        signal: As of `nvml_signal`.
    """
    if device.type != "cuda":
        return None
    uuid = f"GPU-{torch.cuda.get_device_properties(device).uuid}"
    opened: list[Callable[[], float]] = []

    def read() -> float:
        if not opened:  # here, since whoever reads knows what to do where there is no NVML
            opened.append(nvml_signal(importlib.import_module("pynvml"), uuid, signal))
        return opened[0]()

    return read


def nvml_signal(nvml: Any, uuid: str, signal: str) -> Callable[[], float]:  # noqa: ANN401
    """Return what reads a number of a GPU, in percent.

    Args:
        nvml: The module `pynvml`, which has no types.
        uuid: Of the GPU.
        signal: "gpu" for how busy it is, "temperature" of where it slows down, "power" of its
            limit.
    """
    nvml.nvmlInit()
    gpu = nvml.nvmlDeviceGetHandleByUUID(uuid)
    if signal == "temperature":
        slows_down = nvml.nvmlDeviceGetTemperatureThreshold(
            gpu, nvml.NVML_TEMPERATURE_THRESHOLD_SLOWDOWN
        )
        sensor = nvml.NVML_TEMPERATURE_GPU
        return lambda: 100.0 * nvml.nvmlDeviceGetTemperature(gpu, sensor) / slows_down
    if signal == "power":
        limit = nvml.nvmlDeviceGetEnforcedPowerLimit(gpu)
        return lambda: 100.0 * nvml.nvmlDeviceGetPowerUsage(gpu) / limit
    return lambda: float(nvml.nvmlDeviceGetUtilizationRates(gpu).gpu)
