"""What GPUs tell of how busy they are."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from lightning_elche.callbacks.host_gpu import gpu_signal, nvml_signal


class Nvml:
    """A GPU at 75 degrees, that slows down at 100, and takes 150 of 300 watts."""

    NVML_TEMPERATURE_GPU, NVML_TEMPERATURE_THRESHOLD_SLOWDOWN = 0, 1

    def nvmlInit(self) -> None: ...

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> str:
        return uuid

    def nvmlDeviceGetUtilizationRates(self, gpu: str) -> Any:
        return SimpleNamespace(gpu=42)

    def nvmlDeviceGetTemperature(self, gpu: str, sensor: int) -> int:
        return 75 + sensor

    def nvmlDeviceGetTemperatureThreshold(self, gpu: str, kind: int) -> int:
        return 99 + kind

    def nvmlDeviceGetEnforcedPowerLimit(self, gpu: str) -> int:
        return 300_000

    def nvmlDeviceGetPowerUsage(self, gpu: str) -> int:
        return 150_000


@pytest.mark.parametrize(
    ("signal", "percent"), [("gpu", 42.0), ("temperature", 75.0), ("power", 50.0)]
)
def test_signals_of_a_gpu_are_percentages(signal: str, percent: float) -> None:
    """Of its limits."""
    assert nvml_signal(Nvml(), "GPU-1", signal)() == percent


def test_device_without_driver_has_no_signal() -> None:
    """As the CPU."""
    assert gpu_signal(torch.device("cpu"), "gpu") is None


@pytest.mark.cuda
@pytest.mark.parametrize("signal", ["gpu", "temperature", "power"])
def test_signals_of_a_real_gpu_can_be_read(signal: str) -> None:
    """They are percentages."""
    pytest.importorskip("pynvml")
    read = gpu_signal(torch.device("cuda", 0), signal)
    assert read is not None
    assert 0.0 <= read() <= 110.0
