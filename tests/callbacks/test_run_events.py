"""What happens to a run reaches all who have subscribed."""

from __future__ import annotations

import logging

import pytest

from lightning_elche.callbacks.run_events import emit, subscribe


def test_subscriber_hears_of_events_until_it_leaves() -> None:
    """Kind and particulars, in order; leaving twice does nothing."""
    heard: list[tuple[str, dict[str, object]]] = []
    unsubscribe = subscribe(lambda *event: heard.append(event))
    emit("rollback", step=3)
    emit("safety", kind="spike")
    unsubscribe()
    unsubscribe()
    emit("rollback", step=4)
    assert heard == [("rollback", {"step": 3}), ("safety", {"kind": "spike"})]


def test_subscriber_that_fails_disturbs_nobody(caplog: pytest.LogCaptureFixture) -> None:
    """The next one hears of the event, and the failure is logged."""
    heard: list[str] = []

    def fails(kind: str, data: dict[str, object]) -> None:
        raise ArithmeticError(kind, data)

    leave = [subscribe(fails), subscribe(lambda kind, _: heard.append(kind))]
    emit("rollback")
    for unsubscribe in leave:
        unsubscribe()
    assert heard == ["rollback"]
    assert "A subscriber failed on the event 'rollback'." in caplog.text


def test_event_is_logged_as_json(caplog: pytest.LogCaptureFixture) -> None:
    """At level INFO."""
    with caplog.at_level(logging.INFO, logger="lightning_elche.events"):
        emit("rollback", step=3)
    assert caplog.messages == ['{"event": "rollback", "step": 3}']
