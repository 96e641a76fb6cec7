"""How long steps take."""

from __future__ import annotations

import pytest
import torch

from lightning_elche.distributed.timing import CudaTimer, HostTimer, timer_for
from tests.distributed.threads import FakeClock


def test_host_timer_sums_the_time_within_steps() -> None:
    """Time between two steps does not count."""
    clock = FakeClock()
    timer = HostTimer(clock)
    for begin, end in ((1.0, 1.5), (9.0, 9.25)):
        clock.now = begin
        timer.begin()
        clock.now = end
        timer.end()
    assert timer.elapsed_ms() == timer.elapsed_ms(wait=True) == 750.0


def test_host_timer_does_not_count_an_unfinished_step() -> None:
    """A step counts when it ends."""
    clock = FakeClock()
    timer = HostTimer(clock)
    timer.begin()
    clock.now = 5.0
    assert timer.elapsed_ms() == 0.0


def test_host_timer_starts_again_after_a_reset() -> None:
    """A new window begins at zero."""
    clock = FakeClock()
    timer = HostTimer(clock)
    timer.begin()
    clock.now = 1.0
    timer.end()
    timer.reset()
    assert timer.elapsed_ms() == 0.0


def test_host_timer_suits_the_cpu() -> None:
    """The CPU computes synchronously, so that the host's clock is right."""
    assert isinstance(timer_for(torch.device("cpu")), HostTimer)


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_timer_counts_the_device_time_of_steps() -> None:
    """The sum grows with the work on the device, and is complete once it was waited for."""
    timer = timer_for(torch.device("cuda"))
    matrix = torch.randn(1024, 1024, device="cuda")
    timer.begin()
    for _ in range(50):
        matrix = matrix @ matrix.t() / 1024.0
    timer.end()
    assert isinstance(timer, CudaTimer)
    assert timer.elapsed_ms(wait=True) > 0.0
    assert timer.elapsed_ms() == timer.elapsed_ms(wait=True)


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_timer_starts_again_after_a_reset() -> None:
    """Steps that have not been read are dropped with the window."""
    timer = CudaTimer()
    timer.begin()
    timer.end()
    timer.reset()
    assert timer.elapsed_ms(wait=True) == 0.0
