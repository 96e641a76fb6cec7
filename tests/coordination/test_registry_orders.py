"""What keeps tasks out for a while: orders, short hosts, peak hours and reservations."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from lightning_elche.coordination.registry.registry import Registry
from lightning_elche.coordination.stopping.commands import write_command
from tests.coordination.registered import MACHINE, FakeHost, ask, make_registry

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
