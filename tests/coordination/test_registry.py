"""Who may start, in which order, and when a lease is free again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_elche.coordination.breaker import BreakerConfig
from lightning_elche.coordination.registry.capacity import Machine
from lightning_elche.coordination.registry.registry import Registry
from lightning_elche.coordination.registry.request import Request
from lightning_elche.coordination.stopping.commands import write_command
from tests.coordination.registered import (
    ANY_RATE,
    ELSEWHERE,
    FakeHost,
    ask,
    give,
    make_registry,
    process,
)

GIB = 2**30
MACHINE = Machine(
    gpus=2, gpu_name="NVIDIA A100", vram_bytes=160 * GIB, ram_bytes=64 * GIB, cores=16
)


@pytest.fixture
def host() -> FakeHost:
    return FakeHost()


@pytest.fixture
def registry(tmp_path: Path, host: FakeHost) -> Registry:
    return make_registry(tmp_path, host, per_host={"train": 2, "eval": None})


# Limits


def test_limit_of_a_host_holds_there_only(registry: Registry) -> None:
    """The third on one host is refused, the first on another is not."""
    codes = [ask(registry, pid=pid).code for pid in (1, 2, 3)]
    assert codes == ["admitted", "admitted", "host_limit"]
    assert ask(registry, pid=3, host="b").code == "admitted"


def test_limit_of_the_cluster_holds_everywhere(registry: Registry) -> None:
    """Three of kind train on all hosts."""
    codes = [ask(registry, host=name).code for name in "abcd"]
    assert codes == ["admitted", "admitted", "admitted", "cluster_limit"]


def test_lease_that_is_given_back_is_free_at_once(registry: Registry) -> None:
    """And giving it back twice is no error."""
    first = give(registry)
    give(registry)
    assert ask(registry).code == "host_limit"
    assert [registry.release(first, succeeded=True) for _ in range(2)] == [True, False]
    assert ask(registry).code == "admitted"


def test_who_asks_again_since_the_answer_was_lost_gets_no_second_lease(registry: Registry) -> None:
    """The same one, and its start counts once."""
    request = Request(kind="train", host="a", process=process(1))
    leases = [registry.admit(request).lease for _ in range(2)]
    assert leases[0] == leases[1]
    assert (len(registry.leases()), registry.state()["starts"]) == (1, 1)


def test_unknown_kind_is_an_error(registry: Registry) -> None:
    """The message says which there are, and how to add one."""
    with pytest.raises(ValueError, match=r"`kind` must be one of eval, .* got 'trian'. Add it to"):
        ask(registry, "trian")


def test_memory_that_others_have_asked_for_is_taken(registry: Registry) -> None:
    """Until they have ended."""
    first = give(registry, ram_bytes=40 * GIB, machine=MACHINE)
    refused = ask(registry, "eval", ram_bytes=30 * GIB, machine=MACHINE)
    assert refused.code == "capacity"
    assert refused.reason == (
        "it needs 32212254720 bytes of memory, a has 68719476736, of which 42949672960 are asked "
        "for"
    )
    registry.release(first, succeeded=True)
    assert ask(registry, "eval", ram_bytes=30 * GIB, machine=MACHINE).allowed


@pytest.mark.parametrize(
    "needs", [{"ram_bytes": 65 * GIB}, {"gpus": 3}, {"gpus": 1, "vram_bytes": 161 * GIB}]
)
def test_what_never_fits_does_not_wait(registry: Registry, needs: dict[str, Any]) -> None:
    """There is no place in the queue for it."""
    refused = ask(registry, machine=MACHINE, wait=True, **needs)
    assert (refused.code, refused.ticket) == ("too_large", None)


@pytest.mark.parametrize(
    ("held", "asked", "code"),
    [
        ({"gpus": 1}, {"gpus": 1}, "admitted"),
        ({"gpus": 2}, {"gpus": 1}, "capacity"),
        ({"gpus": 1}, {"gpus": 2, "vram_bytes": 20 * GIB}, "capacity"),
        ({"gpus": 1}, {"gpus": 1, "vram_bytes": 20 * GIB}, "admitted"),
        ({"gpus": 2, "vram_bytes": 20 * GIB}, {"gpus": 2, "vram_bytes": 20 * GIB}, "admitted"),
        ({"gpus": 2, "vram_bytes": 20 * GIB}, {"gpus": 1}, "capacity"),
        ({"gpus": 2, "vram_bytes": 150 * GIB}, {"gpus": 1, "vram_bytes": 20 * GIB}, "capacity"),
    ],
)
def test_gpus_are_shared_by_those_that_say_what_they_need(
    registry: Registry, held: dict[str, int], asked: dict[str, int], code: str
) -> None:
    """Those that do not say it have theirs alone."""
    give(registry, machine=MACHINE, **held)
    assert ask(registry, machine=MACHINE, **asked).code == code


def test_measured_capacity_limits_a_kind(tmp_path: Path, host: FakeHost) -> None:
    """Sixteen cores have room for two tasks of which each has used eight."""
    registry = make_registry(
        tmp_path, host, capacity="measured", per_host={"train": 100}, cluster={"train": None}
    )
    first = give(registry, machine=MACHINE)
    registry.heartbeat(first, cores_used=8.0, ram_peak_bytes=GIB)
    registry.release(first, succeeded=True)
    codes = [ask(registry, machine=MACHINE).code for _ in range(3)]
    assert codes == ["admitted", "admitted", "host_limit"]


def test_dynamic_limit_follows_the_utilization(tmp_path: Path, host: FakeHost) -> None:
    """By one each 30 seconds, within its bounds."""
    registry = make_registry(tmp_path, host, dynamic={"min": 1, "max": 2})
    lease, slots = give(registry), []
    for utilization in (20.0, 20.0, 20.0, 70.0, 95.0, 95.0):
        registry.heartbeat(lease, utilization_pct=utilization)
        slots.append(registry.state()["hosts"]["a"]["slots"])
        host.pass_s(20.0)
    assert slots == [2, 2, 2, 2, 1, 1]


# Orders, thresholds, peak hours


def test_halt_refuses_all_until_it_is_taken_back(registry: Registry) -> None:
    """And says who has given it."""
    registry.halt("the disk is being replaced", by="ann")
    refused = ask(registry)
    assert (refused.code, refused.reason) == (
        "halted",
        "halted by ann: the disk is being replaced",
    )
    assert registry.resume(by="ann")
    assert ask(registry).allowed
    assert not registry.resume()


def test_file_halts_as_well(registry: Registry, tmp_path: Path) -> None:
    """Whatever is in it, until `resume` removes it."""
    write_command(tmp_path, "HALT", at=0.0, by="bob", reason="too hot")
    assert ask(registry).reason.endswith("HALT is there: HALT by bob: too hot")
    registry.resume()
    assert not (tmp_path / "HALT").exists()
    assert ask(registry).allowed


def test_pause_is_told_apart(registry: Registry) -> None:
    """By its code."""
    registry.pause("a backup", by="ann")
    assert ask(registry).code == "paused"


def test_short_host_refuses(registry: Registry) -> None:
    """With what it is short of."""
    refused = ask(registry, threshold="12 GB of disk are free, 40 GB are needed")
    assert (refused.code, refused.reason[:5]) == ("threshold", "12 GB")


def test_peak_hours_refuse_until_they_are_over(tmp_path: Path, host: FakeHost) -> None:
    """They are asked with the time of the wall clock and how long it will take."""
    asked = []

    def peak(now_s: float, expected_s: float) -> float:
        asked.append((now_s, expected_s))
        return 600.0

    refused = ask(make_registry(tmp_path, host, peak=peak), expected_s=3600.0)
    assert (refused.code, refused.retry_after_s, asked) == ("peak_hours", 600.0, [(1e9, 3600.0)])


# Rates


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


# Queues


def test_queue_is_served_in_order(registry: Registry) -> None:
    """Who comes later is refused, even if there is room, until those before have started."""
    held = [give(registry, pid=pid) for pid in (1, 2)]
    places = [ask(registry, pid=pid, wait=True).ticket for pid in (3, 4)]
    registry.release(held[0], succeeded=True)
    late = ask(registry, pid=5, wait=True)
    assert (late.code, late.reason) == ("queued", "2 of kind train have waited for longer")
    assert ask(registry, pid=4, wait=True, ticket=places[1]).code == "queued"
    assert ask(registry, pid=3, wait=True, ticket=places[0]).code == "admitted"
    assert ask(registry, pid=4, wait=True, ticket=places[1]).code == "host_limit"


def test_kinds_do_not_wait_for_each_other(registry: Registry) -> None:
    """A queue of trains does not hold up an eval."""
    for pid in (1, 2, 3):
        ask(registry, pid=pid, wait=True)
    assert ask(registry, "eval", pid=4).allowed


def test_place_is_kept_when_it_is_asked_for_again(registry: Registry) -> None:
    """The same ticket, once."""
    give(registry), give(registry)
    first = ask(registry, pid=3, wait=True).ticket
    assert ask(registry, pid=3, wait=True, ticket=first).ticket == first
    assert len(registry.state()["queues"]["train"]) == 1


@pytest.mark.parametrize("leaves", ["cancels", "ends", "forgets"])
def test_place_of_who_has_gone_is_free(registry: Registry, host: FakeHost, leaves: str) -> None:
    """Given up, of a process that has ended, or not asked for in 90 seconds."""
    held = give(registry), give(registry)
    place = ask(registry, pid=3, wait=True).ticket
    assert place is not None
    registry.release(held[0], succeeded=True)
    if leaves == "cancels":
        registry.cancel(place)
    elif leaves == "ends":
        host.ended.add(process(3))
    else:
        host.pass_s(91.0)
    assert ask(registry, pid=4).allowed


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(st.sampled_from("nar"), st.integers(0, 5)), max_size=30))
def test_nobody_is_overtaken(tmp_path_factory: Any, steps: list[tuple[str, int]]) -> None:
    """Whoever comes, asks again or gives back in whatever order: starts are in order of arrival."""
    host = FakeHost()
    registry = make_registry(tmp_path_factory.mktemp("fifo"), host, per_host={"train": 1})
    waiting: dict[int, str] = {}
    running: list[str] = []
    started: list[int] = []
    for number, (step, which) in enumerate(steps):
        if step == "r" and running:
            registry.release(running.pop(), succeeded=True)
        asker = number if step == "n" else next(iter([*waiting][which:]), None)
        if step == "r" or asker is None:
            continue
        answer = ask(registry, pid=asker, wait=True, ticket=waiting.get(asker))
        if answer.lease is not None:
            running.append(answer.lease.id)
            started.append(asker)
            assert waiting.pop(asker, None) is not None or not waiting
        else:
            assert answer.ticket is not None
            waiting[asker] = answer.ticket
    assert started == sorted(started)


# Breakers


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


# Reservations


def test_reserved_host_is_for_those_who_name_it(registry: Registry) -> None:
    """Until it is dropped."""
    registry.reserve("gauntlet", host="a", by="ann")
    assert ask(registry).reason == "a is reserved for gauntlet"
    assert ask(registry, host="b").allowed
    assert ask(registry, reservation="gauntlet").allowed
    assert registry.unreserve("gauntlet", by="ann")
    assert ask(registry).allowed
    assert not registry.unreserve("gauntlet")


def test_reserved_gpu_is_kept_free(registry: Registry) -> None:
    """The other one is not, and tasks without GPUs do not care."""
    registry.reserve("gauntlet", host="a", gpus=1)
    assert ask(registry, gpus=2, machine=MACHINE).code == "reserved"
    assert ask(registry, gpus=1, machine=MACHINE).allowed
    assert ask(registry, "eval", gpus=1, machine=MACHINE).code == "reserved"
    assert ask(registry, "eval", gpus=1, machine=MACHINE, reservation="gauntlet").allowed
    assert ask(registry, "worker").allowed


def test_reservation_for_a_kind_and_a_time(registry: Registry, host: FakeHost) -> None:
    """Others are not kept out, and it ends by itself."""
    registry.reserve("quiet", host="a", kind="train", for_s=60.0)
    assert ask(registry, "eval").allowed
    assert ask(registry).code == "reserved"
    host.pass_s(61.0)
    assert ask(registry).allowed


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("", {}, "`name` must not be empty"),
        ("x", {"gpus": 0}, "`gpus` must be >= 1, or None for the whole host, got 0"),
        ("x", {"for_s": -1.0}, "`for_s` must be > 0 and finite, or None for no end, got -1.0"),
        ("x", {"kind": "trian"}, "`kind` must be one of eval"),
    ],
)
def test_reservation_of_nothing_is_refused(
    registry: Registry, name: str, options: dict[str, Any], message: str
) -> None:
    """The message names the argument."""
    with pytest.raises(ValueError, match=message):
        registry.reserve(name, **options)


def test_target_is_a_part(tmp_path: Path, host: FakeHost) -> None:
    """Of the host's time."""
    with pytest.raises(ValueError, match=r"`target_ratio` must be in \(0, 1\], got 1.5"):
        make_registry(tmp_path, host, target_ratio=1.5)


# Who lives


def test_slot_of_a_process_that_ended_is_back_at_once(registry: Registry, host: FakeHost) -> None:
    """At the next question, by whomever."""
    give(registry, pid=1), give(registry, pid=2)
    assert ask(registry, pid=3).code == "host_limit"
    host.ended.add(process(1))
    assert ask(registry, pid=3).allowed


def test_lease_of_a_day_is_kept(registry: Registry, host: FakeHost) -> None:
    """Without a sign of life, since its process can be seen."""
    give(registry, pid=1), give(registry, pid=2)
    host.pass_s(24 * 3600.0)
    assert ask(registry, pid=3).code == "host_limit"


@pytest.mark.parametrize("namespace", [ELSEWHERE, "pid:[1]"])
def test_process_that_cannot_be_seen_gives_signs_of_life(
    registry: Registry, host: FakeHost, namespace: str
) -> None:
    """Of another boot or another namespace: it is lost 90 seconds after the last one."""
    far = process(1, boot="first" if namespace == ELSEWHERE else "other", namespace=namespace)
    lease = give(registry, held_by=far)
    host.ended.add(far)
    for _ in range(30):
        host.pass_s(80.0)
        assert registry.heartbeat(lease).is_held
    host.pass_s(90.0)
    assert [one.id for one in registry.leases()] == [lease]
    host.pass_s(1.0)
    assert registry.leases() == ()
    assert not registry.heartbeat(lease).is_held


@pytest.mark.parametrize("by_s", [-3600.0, 3600.0])
def test_wall_clock_that_is_set_changes_nothing(
    registry: Registry, host: FakeHost, by_s: float
) -> None:
    """Neither are leases lost, nor do times of waiting change."""
    far = process(1, namespace=ELSEWHERE)
    give(registry, held_by=far)
    host.pass_s(60.0)
    host.set_wall(by_s)
    assert len(registry.leases()) == 1
    host.pass_s(31.0)
    assert registry.leases() == ()


@pytest.mark.parametrize(("off_s", "left"), [(600.0, 0), (-3600.0, 1)])
def test_restart_of_the_host_ends_what_was_silent(
    registry: Registry, host: FakeHost, off_s: float, left: int
) -> None:
    """Nothing is lost if the wall clock has gone back, and the rest 90 seconds later."""
    give(registry, pid=1)
    host.restart("second", off_s)
    ask(registry, "eval", pid=2, held_by=process(2, boot="second"))
    assert len(registry.leases()) == left + 1
    host.pass_s(91.0)
    assert [lease.kind for lease in registry.leases()] == ["eval"]


# What is told


def test_why_shows_all_rules_and_changes_nothing(registry: Registry, tmp_path: Path) -> None:
    """The file is the same, byte for byte."""
    give(registry, pid=1), give(registry, pid=2)
    registry.database.close()  # so that all is in the one file
    before = (tmp_path / "registry.db").read_bytes()
    decision = registry.why(Request(kind="train", host="a", process=process(3), wait=True))
    registry.database.close()
    assert (tmp_path / "registry.db").read_bytes() == before
    assert (decision.code, decision.ticket, decision.lease) == ("host_limit", None, None)
    refusing = [rule.reason for rule in decision.rules if not rule.is_met]
    assert refusing == ["2 of kind train on a, 2 allowed"]
    assert [rule.code for rule in decision.rules] == [
        *("halted", "paused", "breaker_open", "queued", "reserved", "host_limit", "cluster_limit"),
        *("capacity", "threshold", "peak_hours", "backpressure", "cooldown", "rate_limited"),
    ]


def test_state_tells_everything(registry: Registry) -> None:
    """As JSON has it."""
    lease = give(registry, pid=1, machine=MACHINE)
    give(registry, pid=2), ask(registry, pid=3, wait=True)
    state = registry.state()
    assert lease in [one["id"] for one in state["leases"]]
    assert state["answers"] == {"admitted": 2, "host_limit": 1}
    assert state["hosts"]["a"]["machine"]["gpus"] == 2
    assert (state["halted"], state["starts"], len(state["queues"]["train"])) == (None, 2, 1)


def test_tasks_split_a_host_by_weight(tmp_path: Path, host: FakeHost) -> None:
    """At each sign of life, by what all of them ask for."""
    registry = make_registry(tmp_path, host, per_host={"train": 9}, target_ratio=0.75)
    first, second = give(registry, weight=1.0), give(registry, weight=2.0)
    assert registry.heartbeat(first, requested=1.0).grant == 0.75
    assert registry.heartbeat(second, requested=1.0).grant == 0.5
    assert registry.heartbeat(first, requested=1.0).grant == 0.25
    assert registry.heartbeat(first).grant is None
    assert registry.heartbeat(second, requested=1.0).grant == 0.5
    registry.heartbeat(first, requested=0.0)
    assert registry.heartbeat(second, requested=1.0).grant == 0.75


def test_new_registry_has_the_limits_of_the_table(tmp_path: Path, host: FakeHost) -> None:
    """One train on a host, three on all; sweeps one in all."""
    registry = make_registry(tmp_path, host)
    assert set(ANY_RATE) <= set(vars(registry.limits))
    assert [ask(registry, host=name).code for name in "aa"] == ["admitted", "host_limit"]
    assert [ask(registry, "sweep", host=name).code for name in "ab"] == [
        "admitted",
        "cluster_limit",
    ]
