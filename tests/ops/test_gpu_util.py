"""The utilization of a GPU: what the driver says, or nothing."""

from __future__ import annotations

import pytest
import torch

from lightning_elche.ops.gpu_util import GpuUtilization

CUDA = torch.device("cuda", 0)


def test_no_gpu_has_no_utilization() -> None:
    """And says so."""
    utilization = GpuUtilization(torch.device("cpu"))
    assert (utilization.percent(), utilization.source) == (0.0, "none")


def test_driver_is_asked_at_most_once_a_second() -> None:
    """The number is repeated meanwhile."""
    answers = iter((10, 20))
    now = [100.0]
    utilization = GpuUtilization(CUDA, clock=lambda: now[0], ask=lambda _: next(answers))
    seen = []
    for now[0] in (100.0, 100.9, 101.0, 101.5):
        seen.append(utilization.percent())
    assert (seen, utilization.source) == ([10.0, 10.0, 20.0, 20.0], "nvml")


@pytest.mark.parametrize("error", [ModuleNotFoundError("pynvml"), RuntimeError("no driver")])
def test_silent_driver_is_told_once(error: Exception) -> None:
    """The number is not invented."""

    def fail(_: torch.device) -> int:
        raise error

    with pytest.warns(UserWarning, match="GATE-TRAIN-008 cannot be judged"):
        utilization = GpuUtilization(CUDA, ask=fail)
    assert (utilization.percent(), utilization.source) == (0.0, "unavailable")


@pytest.mark.cuda
def test_utilization_of_a_real_gpu_is_a_percentage() -> None:
    """As NVML says it."""
    utilization = GpuUtilization(CUDA)
    assert 0.0 <= utilization.percent() <= 100.0
