"""Marks of the tests of `benchmarks/`."""

from __future__ import annotations

import os

import pytest

needs_two_cores = pytest.mark.skipif(
    len(os.sched_getaffinity(0)) < 2, reason="each rank needs a core of its own"
)
