"""The ring keeps the latest snapshots within its depth and its memory."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from lightning_elche.control.recovery import Recovery, Stage
from lightning_elche.ops.ring import Ring, RingConfig
from lightning_elche.ops.snapshot import LiveState


def made(**options: int) -> tuple[nn.Linear, Ring]:
    """A ring around 10 numbers, which are 40 bytes."""
    module = nn.Linear(4, 2)
    live = LiveState(module=module, device=torch.device("cpu"))
    return module, Ring(RingConfig(**options), live, Recovery().to_evict)


def fill(module: nn.Linear, ring: Ring, *steps: int, stage: Stage = Stage.CONFIRMED) -> None:
    """Take a snapshot at each step, when the bias is that number."""
    for step in steps:
        module.bias.data.fill_(float(step))
        slot = ring.put(step=step, batch=step)
        if slot is not None:
            slot.stage = stage


def steps_of(ring: Ring) -> list[int]:
    return [slot.step for slot in ring.slots]


def test_latest_snapshots_are_kept() -> None:
    """As many as the depth."""
    module, ring = made(depth=3)
    fill(module, ring, 0, 1, 2, 3, 4)
    assert steps_of(ring) == [2, 3, 4]
    assert ring.snapshots == 5


def test_restored_snapshot_is_the_latest() -> None:
    """Later ones are of a history that never was."""
    module, ring = made(depth=3)
    fill(module, ring, 0, 1, 2)
    ring.restore(ring.slots[1])
    assert module.bias.tolist() == [1.0, 1.0]
    assert steps_of(ring) == [0, 1]


def test_bytes_are_those_that_are_held() -> None:
    """Memory is used again, so that they stay the same."""
    module, ring = made(depth=2)
    fill(module, ring, 0, 1)
    held = ring.nbytes
    encoded = sum(len(slot.snapshot._rest) for slot in ring.slots)
    ring.restore(ring.slots[0])
    after_restore = ring.nbytes
    fill(module, ring, 2, 3, 4)
    assert held - encoded == 80
    assert (after_restore, ring.nbytes) == (held, held)


def test_dropped_snapshot_leaves_room() -> None:
    """For the next one."""
    module, ring = made(depth=2)
    fill(module, ring, 0, 1)
    ring.drop(ring.slots[1])
    fill(module, ring, 2)
    assert steps_of(ring) == [0, 2]


def room_for(snapshots: float) -> int:
    """Return the bytes of so many snapshots."""
    module, ring = made()
    fill(module, ring, 0)
    return int(snapshots * ring.nbytes)


def test_fewer_are_kept_where_memory_ends() -> None:
    """Two of five; the oldest makes room."""
    module, ring = made(depth=5, max_bytes=room_for(2.5))
    fill(module, ring, 0, 1, 2, 3)
    assert (steps_of(ring), ring.refused) == ([2, 3], 0)
    assert ring.nbytes <= room_for(2.5)


def test_snapshot_is_refused_if_no_other_may_go() -> None:
    """It is counted; one that only the depth forbids is not."""
    module, ring = made(depth=5, max_bytes=room_for(2.5))
    fill(module, ring, 0)
    fill(module, ring, 1, stage=Stage.ELIGIBLE)
    fill(module, ring, 2)
    assert (steps_of(ring), ring.refused) == ([0, 1], 1)


def test_room_for_fewer_than_two_is_an_error() -> None:
    """With both numbers of bytes; not before optimizers have stepped."""
    limit = room_for(1.9)
    module, ring = made(max_bytes=limit)
    fill(module, ring, 0)
    size = ring.nbytes
    message = f"at least {2 * size}, which is two snapshots of {size} bytes each, got {limit}"
    with pytest.raises(ValueError, match=message):
        fill(module, ring, 1)


def test_new_round_keeps_the_last_two_events() -> None:
    """They are beside the depth, and never evicted in their round."""
    module, ring = made(depth=2)
    for event in range(4):
        slot = ring.put(step=10 * event, batch=0, event=event)
        assert slot is not None
        slot.stage = Stage.ELIGIBLE
        fill(module, ring, *range(10 * event + 1, 10 * event + 5))
        seen = ([slot.event for slot in ring.earlier], steps_of(ring))
        ring.begin_round()
    assert seen == ([2], [30, 33, 34])
    assert [slot.event for slot in ring.earlier] == [2, 3]


def test_event_that_is_not_known_to_be_finite_is_not_kept() -> None:
    """Nobody could go back to it."""
    _, ring = made()
    ring.put(step=0, batch=0, event=0)
    ring.begin_round()
    assert ring.earlier == []


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"every": 0}, "`every` must be >= 1, got 0"),
        ({"depth": 1}, "`depth` must be >= 2, since the latest snapshot may .*, got 1"),
        ({"max_bytes": 0}, "`max_bytes` must be >= 1, got 0"),
    ],
)
def test_bad_options_are_refused(option: dict[str, int], message: str) -> None:
    """The message names the parameter and the value."""
    with pytest.raises(ValueError, match=message):
        RingConfig(**option)
