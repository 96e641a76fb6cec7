"""What travels between tasks and the registry."""

from __future__ import annotations

import json
from typing import Any

import pytest

from lightning_elche.coordination.registry.bucket import Bucket, Rate
from lightning_elche.coordination.registry.capacity import Machine
from lightning_elche.coordination.registry.limits import LimitsConfig
from lightning_elche.coordination.registry.request import Beat, Decision, Lease, Request, Rule
from tests.coordination.registered import process

REQUEST = Request(
    kind="train", host="a", process=process(7), machine=Machine(gpus=2, cores=1.5), expected_s=60
)
LEASE = Lease(
    id="x",
    kind="train",
    host="a",
    process=process(7),
    run="r",
    gpus=1,
    vram_bytes=2,
    ram_bytes=3,
    weight=1.0,
    reservation="",
    since_s=4.0,
    beat_s=5.0,
)
DECISION = Decision(
    allowed=True,
    code="admitted",
    reason="",
    lease=LEASE,
    rules=(Rule(code="a", is_met=True, reason="b"),),
)


@pytest.mark.parametrize("record", [REQUEST, LEASE, DECISION, Beat(is_held=True, grant=0.5)])
def test_record_travels_as_json(record: Any) -> None:
    """And is the same over there."""
    assert type(record).from_dict(json.loads(json.dumps(record.to_dict()))) == record


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kind": 3}, "`request.kind` must be of type str, got 3"),
        ({"gpus": True}, "`request.gpus` must be of type int, got True"),
        ({"gpus": -1}, "`gpus` must be a whole number >= 0, got -1"),
        ({"weight": float("nan")}, "`request.weight` must be finite, got nan"),
        ({"weight": 0}, "`weight` must be > 0 and finite, got 0.0"),
        ({"gpu": 1}, "`request` must have no key but kind, .* got 'gpu'"),
        ({"process": {"pid": 1}}, "`request.process` must have the key 'started'"),
        ({"machine": []}, r"`request.machine` must be an object, got \[\]"),
        ({"kind": ""}, "`kind` must not be empty"),
        ({"expected_s": -1.0}, "`expected_s` must be >= 0 and finite, got -1.0"),
    ],
)
def test_what_is_no_request_is_refused(changes: dict[str, Any], message: str) -> None:
    """Wherever it comes from; the message names the key."""
    with pytest.raises(ValueError, match=message):
        Request.from_dict({**REQUEST.to_dict(), **changes})


def test_list_is_no_object() -> None:
    """Nor is an object a list."""
    with pytest.raises(ValueError, match=r"`request` must be an object, got \[1\]"):
        Request.from_dict([1])  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"`decision.rules` must be a list, got 1"):
        Decision.from_dict({**DECISION.to_dict(), "rules": 1})


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("admission", True, "must be one of none, auto, enforce, got True"),
        ("capacity", "guessed", "must be one of fixed, measured, got 'guessed'"),
        ("on_unreachable", "stop", "must be one of deny, allow, got 'stop'"),
        ("per_host", {"train": -1}, "must give each kind a whole number >= 0, .* -1 for 'train'"),
        ("cluster", {"train": 0.5}, "must give each kind a whole number >= 0, .* 0.5 for 'train'"),
        ("rate_per_min", 0, "must be > 0 and finite, got 0"),
        ("window_s", float("inf"), "must be > 0 and finite, got inf"),
        ("weight", -1.0, "must be > 0 and finite, got -1.0"),
        ("burst", 0, "must be >= 1, got 0"),
        ("window_max", 0, "must be >= 1, got 0"),
        ("cooldown_s", -0.1, "must be >= 0 and finite, got -0.1"),
        ("dynamic", {"min": 2, "max": 1}, "must be None or {min: a, max: b} with 0 <= a <= b"),
        ("dynamic", {"min": 2}, "must be None or {min: a, max: b} with 0 <= a <= b"),
        ("kind", "trian", "must be one of eval, .*, got 'trian'. Add it to `per_host`"),
    ],
)
def test_limit_out_of_range_is_refused(option: str, value: Any, message: str) -> None:
    """The message names it."""
    with pytest.raises(ValueError, match=f"`{option}` {message}"):
        LimitsConfig(**{option: value})


def test_kind_of_ones_own_has_a_limit() -> None:
    """The others keep theirs, and `None` lifts one."""
    limits = LimitsConfig(per_host={"probe": 4, "train": None}, kind="probe")
    found = [limits.per_host[kind] for kind in ("probe", "train", "worker")]
    assert found == [4, None, 32]


def test_bucket_has_no_more_than_its_burst() -> None:
    """However long nobody takes anything, and whatever a clock does."""
    rate = Rate(per_s=1.0, burst=2)
    bucket = Bucket(tokens=0.0, at_s=100.0)
    assert [bucket.filled(now_s, rate).tokens for now_s in (99.0, 100.5, 1e9)] == [0.0, 0.5, 2.0]
