"""Tests of the parts of what coordinates a run."""

from __future__ import annotations

import pytest

from lightning_elche.coordination.component import Component
from tests.coordination.stopwatch import FakeClock


class Part:
    """Notes its calls; raises in the one that is named."""

    def __init__(self, *, fails_in: str = "") -> None:
        self.calls: list[str] = []
        self.fails_in = fails_in

    def _note(self, name: str) -> None:
        self.calls.append(name)
        if name == self.fails_in:
            raise OSError("no space")

    def setup(self, *args: object) -> None:
        self._note("setup")

    def on_exception(self, *args: object) -> None:
        self._note("on_exception")

    def teardown(self, *args: object) -> None:
        self._note("teardown")

    def status(self) -> dict[str, object]:
        self._note("status")
        return {"a": 1}


def component(part: object) -> Component:
    return Component("part", part, FakeClock())


def test_part_needs_no_hooks_at_all() -> None:
    """What it does not have is not called."""
    one = component(object())
    one.start()
    assert one.status() == {}
    one.tell("on_exception")
    one.close()
    assert one.stats().state == "STOPPED"


def test_part_runs_once_it_is_set_up() -> None:
    """And has stopped once it is taken down."""
    part = Part()
    one = component(part)
    one.start()
    assert one.stats().is_running
    assert one.status() == {"a": 1}
    one.close()
    one.close()
    assert (one.stats().state, part.calls) == ("STOPPED", ["setup", "status", "teardown"])


def test_part_that_cannot_be_set_up_ends_the_start() -> None:
    """It is taken down all the same, since it may hold something."""
    part = Part(fails_in="setup")
    one = component(part)
    with pytest.raises(OSError, match="no space"):
        one.start()
    assert one.stats().state == "ERROR"
    one.close()
    assert part.calls == ["setup", "teardown"]


def test_part_that_was_never_set_up_is_left_alone() -> None:
    """It has nothing to give back, and nothing to tell."""
    part = Part()
    one = component(part)
    assert one.status() == {}
    one.tell("on_exception")
    one.close()
    assert part.calls == []


@pytest.mark.parametrize("hook", ["on_exception", "teardown", "status"])
def test_part_that_raises_late_is_counted(hook: str, caplog: pytest.LogCaptureFixture) -> None:
    """The end of a run goes on without it."""
    one = component(Part(fails_in=hook))
    one.start()
    one.tell("on_exception")
    assert one.status() == ({} if hook == "status" else {"a": 1})
    one.close()
    stats = one.stats()
    assert (stats.state, stats.errors, stats.last_error) == ("STOPPED", 1, "OSError: no space")
    assert len(caplog.records) == 1
