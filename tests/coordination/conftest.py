"""A host and a registry on it, for the tests that ask it."""

from __future__ import annotations

from pathlib import Path

import pytest

from lightning_elche.coordination.registry.registry import Registry
from tests.coordination.registered import FakeHost, make_registry


@pytest.fixture
def host() -> FakeHost:
    return FakeHost()


@pytest.fixture
def registry(tmp_path: Path, host: FakeHost) -> Registry:
    return make_registry(tmp_path, host, per_host={"train": 2, "eval": None})
