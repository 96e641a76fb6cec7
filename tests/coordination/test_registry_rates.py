"""How fast tasks may start, one after the other."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.coordination.registered import FakeHost, ask, make_registry


def test_starts_on_a_host_are_apart(tmp_path: Path, host: FakeHost) -> None:
    """By a second; another host does not wait."""
    registry = make_registry(tmp_path, host, per_host={"train": 9}, cooldown_s=1.0)
    assert ask(registry).allowed
    host.pass_s(0.4)
    refused = ask(registry)
    assert (refused.code, refused.retry_after_s) == ("cooldown", pytest.approx(0.6))
    assert ask(registry, host="b").allowed
    host.pass_s(0.6)
    assert ask(registry).allowed


def test_too_many_starts_push_back(tmp_path: Path, host: FakeHost) -> None:
    """From the 25th of 30 on a start is asked to wait, and the 31st comes when the first is old."""
    registry = make_registry(
        tmp_path, host, per_host={"worker": None}, kind="worker", window_max=30
    )
    delays = []
    for _ in range(30):
        decision = ask(registry, "eval", host=str(len(delays)))
        registry.release(decision.lease.id, succeeded=True) if decision.lease else None
        delays.append(decision.delay_s)
        host.pass_s(1.0)
    refused = ask(registry, "eval")
    assert delays == pytest.approx([0.0] * 24 + [1 + 4 * n / 6 for n in range(6)])
    assert (refused.code, refused.retry_after_s) == ("backpressure", pytest.approx(30.0))


def test_rates_are_told_by_kind_and_in_all(tmp_path: Path, host: FakeHost) -> None:
    """Workers have 5 at once and 30 a minute, all kinds together 10 and 60."""
    registry = make_registry(tmp_path, host, burst=10, rate_per_min=60.0, per_host={"train": None})
    codes = [ask(registry, "worker").code for _ in range(6)]
    assert codes == ["admitted"] * 5 + ["rate_limited"]
    codes = [ask(registry, "train", host=str(n)).code for n in range(3)]
    assert codes == ["admitted"] * 3
    assert ask(registry, "worker").retry_after_s == pytest.approx(2.0)
    host.pass_s(2.0)
    assert ask(registry, "worker").allowed


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(st.floats(0.0, 3.0), st.sampled_from(["worker", "eval"])), max_size=40))
def test_rate_is_never_exceeded(tmp_path_factory: Any, steps: list[tuple[float, str]]) -> None:
    """In any time at most rate x time + burst start; those refused take no tokens."""
    host = FakeHost()
    registry = make_registry(
        tmp_path_factory.mktemp("rate"),
        host,
        rate_per_min=30.0,
        burst=4,
        per_host={"worker": None},
        cluster={"worker": None, "eval": None},
    )
    now_s, starts = 0.0, list[float]()
    for pause_s, kind in steps:
        host.pass_s(pause_s)
        now_s += pause_s
        decision = ask(registry, kind)
        assert decision.allowed == (ask_free(starts, now_s) >= 1.0 - 1e-6), decision
        starts += [now_s] if decision.allowed else []
    for i, first in enumerate(starts):
        for count, last in enumerate(starts[i:], start=1):
            assert count <= 0.5 * (last - first) + 4 + 1e-6


def ask_free(starts: list[float], now_s: float) -> float:
    """What a bucket of 4 that fills by one each 2 s holds after these starts."""
    tokens, at_s = 4.0, 0.0
    for start in starts:
        tokens, at_s = min(4.0, tokens + 0.5 * (start - at_s)) - 1.0, start
    return min(4.0, tokens + 0.5 * (now_s - at_s))
