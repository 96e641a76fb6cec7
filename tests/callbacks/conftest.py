"""What the events of a run have told, for the tests that read them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from lightning_elche.callbacks.run_events import subscribe
from tests.callbacks.hosted import Events


@pytest.fixture
def events() -> Iterator[Events]:
    told: Events = []
    forget = subscribe(lambda kind, data: told.append((kind, data)))
    yield told
    forget()
