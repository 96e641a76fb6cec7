"""Grants of a link, in one process and in several."""

from __future__ import annotations

import pickle
import threading
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightning_elche.coordination.bandwidth.budget import (
    PRIORITIES,
    BandwidthBudget,
    BandwidthConfig,
    interval_floor_s,
)
from lightning_elche.coordination.bandwidth.rate import RateLimit
from lightning_elche.coordination.bandwidth.transfers import (
    Grant,
    MemoryBook,
    SharedBook,
    TransferBook,
)
from lightning_elche.coordination.registry.database import Database
from tests.distributed.threads import FakeClock

MBIT = 125_000


class SleepingClock(FakeClock):
    """Time that passes in sleeps alone."""

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture(params=["memory", "shared"])
def book(request: pytest.FixtureRequest, tmp_path: Path) -> TransferBook:
    if request.param == "memory":
        return MemoryBook()
    return SharedBook(Database(tmp_path / "registry.db"))


calls = st.lists(
    st.tuples(st.sampled_from(["a", "b"]), st.sampled_from(PRIORITIES), st.booleans()),
    max_size=60,
)


@given(calls, st.floats(1.0, 1000.0), st.floats(1.0, 1000.0))
def test_grants_never_sum_above_the_link(
    wanted: Sequence[tuple[str, str, bool]], host_mbps: float, link_mbps: float
) -> None:
    """That of a host, and that of the machine; nor are there more than three with a host."""
    config = BandwidthConfig(link_mbps=link_mbps, per_host={"a": host_mbps}, floor_mbps=0.0)
    budget, grants = BandwidthBudget(config), list[Grant]()
    for host, priority, ends_one in wanted:
        if ends_one and grants:
            budget.end(grants.pop(0), sent_bytes=0)
        grant = budget.start(host, 10, priority)
        grants += [grant] if isinstance(grant, Grant) else []
        own = [one.mbps for one in grants if one.host == "a"]
        assert sum(own) <= host_mbps + 1e-6
        assert sum(one.mbps for one in grants) <= link_mbps + 1e-6
        assert len(own) <= 3


@pytest.mark.parametrize(
    ("priority", "mbps"), [("critical", 200.0), ("high", 100.0), ("normal", 50.0)]
)
def test_priority_says_which_part_of_the_link_is_granted(
    book: TransferBook, priority: str, mbps: float
) -> None:
    """As the factors have it."""
    budget = BandwidthBudget(BandwidthConfig(per_host={"store": 200.0}), book=book)
    with budget.transfer("store", 10, priority) as transfer:
        assert transfer.grant.mbps == mbps


def test_hosts_are_known_by_their_exact_names() -> None:
    """Others have 100 Mbit/s, or what the link of this machine has."""
    assert BandwidthConfig(per_host={"store-1": 500.0}).mbps_to("store-12") == 100.0
    assert BandwidthConfig(link_mbps=40.0, per_host={"store-1": 500.0}).mbps_to("b") == 40.0


def test_transfer_that_would_get_too_little_is_refused(book: TransferBook) -> None:
    """Until others have ended."""
    budget = BandwidthBudget(BandwidthConfig(), book=book)
    with budget.transfer("store", 10, "critical"):
        assert not budget.can_transfer("store", "high")
        refused = budget.transfer("store", 10, "high")
        with pytest.raises(TimeoutError, match="0 of 100 Mbit/s, `floor_mbps`"), refused:
            pass
    assert budget.can_transfer("store", "high")


def test_fourth_transfer_with_a_host_is_refused(book: TransferBook) -> None:
    """However small they are; not that of another host."""
    budget = BandwidthBudget(BandwidthConfig(), book=book)
    for _ in range(3):
        assert isinstance(budget.start("store", 10, "background"), Grant)
    assert "as many as `max_concurrent` allows" in str(budget.start("store", 10, "background"))
    assert isinstance(budget.start("other", 10, "background"), Grant)


def test_transfer_waits_for_its_turn(book: TransferBook) -> None:
    """At most as long as it is told to."""
    clock = SleepingClock()
    budget = BandwidthBudget(BandwidthConfig(), book=book, clock=clock, sleep=clock.sleep)
    first = budget.start("store", 10, "critical")
    assert isinstance(first, Grant)
    waiting = budget.transfer("store", 10, "normal", timeout_s=5.0)
    with pytest.raises(TimeoutError), waiting:
        pass
    assert clock.now == 5.0


def test_transfer_without_sign_of_life_no_longer_counts() -> None:
    """After the lease; one that goes on sending does."""
    clock = SleepingClock()
    config = BandwidthConfig(lease_s=100.0, floor_mbps=0.0, factors=dict.fromkeys(PRIORITIES, 1.0))
    budget = BandwidthBudget(config, clock=clock, sleep=clock.sleep)
    with budget.transfer("live", 10) as transfer:
        assert isinstance(budget.start("dead", 10), Grant)
        for _ in range(6):
            transfer.throttle(25 * 100 * MBIT)  # 25 seconds
        assert not budget.can_transfer("live")
        assert budget.can_transfer("dead")


def test_shared_grants_are_those_of_all_processes(tmp_path: Path) -> None:
    """Another budget on the same file sees them, and they end after their lease."""
    budgets = [
        BandwidthBudget(BandwidthConfig(), book=SharedBook(Database(tmp_path / "registry.db")))
        for _ in range(2)
    ]
    with budgets[0].transfer("store", 10, "critical"):
        assert not budgets[1].can_transfer("store")
    assert budgets[1].can_transfer("store")


def test_budget_can_be_sent_to_another_process() -> None:
    """As a launcher does; it begins anew there."""
    budget = pickle.loads(pickle.dumps(BandwidthBudget(BandwidthConfig(link_mbps=7.0))))
    assert budget.config.link_mbps == 7.0


def test_threads_share_a_budget_without_exceeding_it() -> None:
    """Eight of them, that take and give back at once."""
    budget, most = BandwidthBudget(BandwidthConfig(max_concurrent=8)), list[float]()

    def work() -> None:
        for _ in range(200):
            grant = budget.start("store", 10, "high")
            if isinstance(grant, Grant):
                most.append(sum(one.mbps for one in budget._book.grants()))
                budget.end(grant, sent_bytes=1)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20.0)
    assert max(most) <= 100.0
    assert budget.sent_bytes["high"] == len(most)


@pytest.mark.parametrize(
    ("num_bytes", "world_size", "link_mbps", "seconds"),
    [(40_000_000, 2, 100.0, 32.0), (40_000_000, 4, 100.0, 48.0), (40_000_000, 2, None, 0.0)],
)
def test_averages_are_as_far_apart_as_the_link_asks_for(
    num_bytes: int, world_size: int, link_mbps: float | None, seconds: float
) -> None:
    """Ten million parameters on two ranks take a tenth of 100 Mbit/s every 32 seconds."""
    config = BandwidthConfig(link_mbps=link_mbps)
    floor_s = interval_floor_s(config, num_bytes=num_bytes, world_size=world_size)
    assert floor_s == pytest.approx(seconds)


@pytest.mark.parametrize("mbps", [1.0, 50.0, 1000.0])
def test_rate_holds_in_any_five_seconds(mbps: float) -> None:
    """By 105 %, with blocks of the size that the limit advises, bursts after pauses included."""
    clock = SleepingClock()
    limit = RateLimit(mbps * MBIT, clock=clock, sleep=clock.sleep)
    sent = list[tuple[float, int]]()
    for index in range(2000):
        if index % 150 == 0:
            clock.sleep(3.0)
        sent.append((clock.now, limit.block_bytes))
        limit.take(limit.block_bytes)
    for begin, _ in sent[::20]:
        in_window = sum(size for at, size in sent if begin <= at < begin + 5.0)
        assert in_window <= 1.05 * 5.0 * mbps * MBIT


@given(st.lists(st.tuples(st.integers(1, 5000), st.floats(0.0, 2.0)), min_size=1, max_size=50))
def test_rate_is_met_in_the_long_run(blocks: list[tuple[int, float]]) -> None:
    """What has passed is at most the rate times the time, and a tenth of a second of it."""
    clock = SleepingClock()
    limit, sent = RateLimit(1000.0, clock=clock, sleep=clock.sleep), 0
    for size, pause_s in blocks:
        clock.sleep(pause_s)
        limit.take(size)
        sent += size
    assert sent <= 1000.0 * (clock.now + 0.1) + 1e-6


@pytest.mark.parametrize(
    ("option", "value", "rule"),
    [
        ("link_mbps", 0.0, "> 0, got 0.0"),
        ("per_host", {"a": -1.0}, "> 0, got -1.0 for 'a'"),
        ("factors", {"high": 1.0}, "have the keys"),
        ("factors", dict.fromkeys(PRIORITIES, 1.5), "> 0 and <= 1, got 1.5 for 'critical'"),
        ("max_concurrent", 0, ">= 1, got 0"),
        ("floor_mbps", -1.0, ">= 0, got -1.0"),
        ("lease_s", float("nan"), "> 0, got nan"),
        ("averaging_ratio", 2.0, "> 0 and <= 1, got 2.0"),
    ],
)
def test_budget_refuses_options_out_of_range(option: str, value: object, rule: str) -> None:
    """The message names the option, the rule and the value."""
    with pytest.raises(ValueError, match=f"`{option}` must (be )?{rule}"):
        BandwidthConfig(**{option: value})


def test_unknown_priority_is_refused() -> None:
    """The message lists those there are."""
    with pytest.raises(ValueError, match=r"`priority` must be one of .*got 'urgent'"):
        BandwidthBudget().start("store", 10, "urgent")
