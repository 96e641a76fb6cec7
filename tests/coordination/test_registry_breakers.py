"""How starts that die end the starts of their host, kind and run."""

from __future__ import annotations

from pathlib import Path

from lightning_elche.coordination.breaker import BreakerConfig
from tests.coordination.registered import FakeHost, ask, give, make_registry, process


def test_five_starts_that_die_open_the_breakers(tmp_path: Path, host: FakeHost) -> None:
    """Of the host, the kind and the run; none of them gave its lease back."""
    registry = make_registry(tmp_path, host)
    for pid in range(5):
        give(registry, pid=pid, run="r")
        host.ended.add(process(pid))
    refused = ask(registry, pid=9, run="r")
    assert (refused.code, refused.retry_after_s) == ("breaker_open", 300.0)
    assert sorted(registry.state()["breakers"]) == ["host:a", "kind:train", "run:r"]


def test_progress_makes_a_start_a_success(tmp_path: Path, host: FakeHost) -> None:
    """Runs that fail later, each time, keep the breaker closed."""
    registry = make_registry(tmp_path, host)
    for pid in range(8):
        lease = give(registry, pid=pid)
        registry.progress(lease)
        registry.progress(lease)
        registry.release(lease, succeeded=False)
    assert ask(registry, pid=9).allowed


def test_stop_from_outside_says_nothing(tmp_path: Path, host: FakeHost) -> None:
    """It is neither a failure nor a success."""
    registry = make_registry(tmp_path, host)
    for pid in range(4):
        registry.release(give(registry, pid=pid), succeeded=False)
    for pid in range(4, 8):
        registry.release(give(registry, pid=pid), succeeded=None)
    assert registry.state()["breakers"]["kind:train"]["failures"] == 4


def test_half_open_lets_three_try(tmp_path: Path, host: FakeHost) -> None:
    """Of all its breakers or of none, and three that make progress close them."""
    registry = make_registry(tmp_path, host, per_host={"train": 9}, cluster={"train": None})
    for pid in range(5):
        registry.release(give(registry, pid=pid), succeeded=False)
    host.pass_s(300.0)
    tries = [give(registry, pid=pid) for pid in (5, 6, 7)]
    assert ask(registry, pid=8).code == "breaker_open"
    assert ask(registry, pid=8, host="b").code == "breaker_open"  # that of the kind
    assert "host:b" not in registry.state()["breakers"]
    for lease in tries:
        registry.progress(lease)
    assert registry.state()["breakers"]["kind:train"]["state"] == 0
    assert ask(registry, pid=8).allowed


def test_breaker_is_closed_by_hand(tmp_path: Path, host: FakeHost) -> None:
    """By its key, and who did it is written down."""
    registry = make_registry(tmp_path, host, breaker=BreakerConfig(failures=1))
    registry.release(give(registry), succeeded=False)
    assert ask(registry).code == "breaker_open"
    closed = [registry.reset_breaker(key, by="ann") for key in ("host:a", "kind:train", "run:x")]
    assert closed == [True, True, False]
    assert ask(registry).allowed
    assert {edit["by"] for edit in registry.state()["edits"]} == {"ann"}
