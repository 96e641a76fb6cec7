"""Checkpoints of a plane, and going back to them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from lightning_elche.partition import errors
from lightning_elche.partition.columns import ColumnState
from lightning_elche.partition.plan import PartitionPlan
from lightning_elche.partition.plane import PartitionPlane
from lightning_elche.partition.policy import CheckpointPolicy
from lightning_elche.partition.replay import Replay
from tests.partition.planes import TIMES_2, doubling, recorded, x_of
from tests.partition.tables import table


def test_checkpoints_are_made_when_due() -> None:
    """With every second step, steps 2 and 4 make one, which the step returns."""
    plane = doubling(policy=CheckpointPolicy(every_steps=2))
    steps = plane.run(5)
    assert [step.checkpoint and step.checkpoint.step for step in steps] == [None, 2, None, 4, None]
    assert plane.latest_checkpoint == steps[3].checkpoint


def test_oldest_checkpoints_are_dropped() -> None:
    """As many are kept as asked for, numbered through."""
    plane = doubling(max_retained=2)
    for label in ("a", None, "c"):
        plane.checkpoint(label)
    kept = [(one.sequence, one.label) for one in plane.checkpoints]
    assert kept == [(2, None), (3, "c")]
    assert plane.latest_checkpoint == plane.checkpoints[-1]


def test_plane_without_checkpoints_has_no_latest() -> None:
    """Before the first checkpoint there is none."""
    assert doubling().latest_checkpoint is None


def test_restore_goes_back_in_state_step_and_replay() -> None:
    """After a restore the same steps are made and verified again."""
    plane = doubling(replay=Replay("verify", recorded(4)))
    plane.run(2)
    made = plane.checkpoint()
    plane.run(2)
    plane.restore(made)
    assert (plane.current_step, x_of(plane)[1]) == (2, 4.0)
    plane.run(2)
    assert list(plane.recorded_replay) == recorded(4)


def test_checkpoint_can_be_restored_twice() -> None:
    """Neither steps nor changes in place reach into a checkpoint, before a restore or after it."""
    plane = doubling()
    made = plane.checkpoint()
    for _ in range(2):
        plane.state.columns["x"][:] = -1.0
        plane.step()
        plane.restore(made)
    assert x_of(plane) == [float(i) for i in range(10)]


def test_restore_changes_step_rows_and_bytes_and_no_other_metric() -> None:
    """Counters go on over a restore."""
    plane = doubling(plan=PartitionPlan.single_process())
    small = doubling(table(4), plan=PartitionPlan.single_process()).checkpoint()
    plane.run(3)
    before = plane.metrics()
    plane.restore(small)
    assert plane.metrics() == replace(before, current_step=0, num_rows=4, num_bytes=64)


def bad_checkpoints() -> list[Any]:
    made = doubling(plan=PartitionPlan.single_process()).checkpoint()
    rows = doubling(table(9), plan=PartitionPlan.single_process()).checkpoint()
    other = ColumnState(range(10), {"z": [0.0] * 10})
    flipped = doubling().checkpoint()
    flipped.state.columns["y"].view(np.uint32)[9] ^= 1
    return [
        (replace(made, step=1), errors.ReassemblyError, "checkpoint 1 fingerprint mismatch"),
        (flipped, errors.ReassemblyError, "checkpoint 1 fingerprint mismatch"),
        (rows, errors.PartitionPlanError, "ends at row 10, beyond agent count 9"),
        (PartitionPlane(other).checkpoint(), errors.ReassemblyError, "schema does not match"),
    ]


@pytest.mark.parametrize(
    ("checkpoint", "error", "text"), bad_checkpoints(), ids=["step", "bit", "rows", "columns"]
)
def test_bad_checkpoint_is_refused_and_changes_nothing(
    checkpoint: Any, error: type[Exception], text: str
) -> None:
    """A checkpoint that changed, or does not fit, is refused before the state is replaced."""
    plane = doubling(replay=Replay("record"))
    plane.run(2)
    before = plane.metrics(), x_of(plane), plane.recorded_replay
    with pytest.raises(error, match=text):
        plane.restore(checkpoint)
    assert (plane.metrics(), x_of(plane), plane.recorded_replay) == before


def test_partitions_can_be_restored_in_any_order() -> None:
    """Partitions taken at a step bring back its state and step."""
    plane = doubling()
    plane.step()
    parts = plane.partition_checkpoints()
    plane.step()
    plane.restore_partitions(parts[::-1])
    assert (plane.current_step, x_of(plane)) == (1, TIMES_2)


def test_partition_that_changed_is_refused_and_changes_nothing() -> None:
    """A flipped bit of a partition leaves the state as it is."""
    plane = doubling()
    parts = plane.partition_checkpoints()
    plane.step()
    parts[2].state.columns["x"].view(np.uint32)[0] ^= 1
    with pytest.raises(errors.ReassemblyError, match=r"PartitionId\(2\) fingerprint mismatch"):
        plane.restore_partitions(parts)
    assert (plane.current_step, x_of(plane)) == (1, TIMES_2)
