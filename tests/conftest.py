"""Settings every test shares: repeatable property tests, and CUDA tests only where CUDA is."""

from __future__ import annotations

import pytest
from hypothesis import settings

# The same examples on every run and every machine; a slow machine is not a failure.
settings.register_profile("repeatable", derandomize=True, deadline=None)
settings.load_profile("repeatable")


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip a test marked `cuda` where no CUDA device is available."""
    if item.get_closest_marker("cuda") is None:
        return
    import torch

    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
