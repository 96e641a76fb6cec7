"""Power cuts: whatever the disk has kept, the newest saved checkpoint is there and right."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path

import pytest

from lightning_elche.partition.errors import CheckpointError, NoCheckpointFound
from lightning_elche.partition.read_checkpoint import verify_checkpoint
from lightning_elche.partition.read_root import choose_checkpoint
from lightning_elche.partition.store import CheckpointStore
from lightning_elche.testing import RecordingFs
from tests.partition.states import make_snapshot, make_store

ROOT = Path("/runs/ckpt")


class Power:
    """Cuts the power after every operation, and collects what is wrong with what is left."""

    def __init__(self) -> None:
        self.returned = 0
        self.started = 0
        self.has_step_2 = False
        self.faults: set[str] = set()
        self.num_states = 0

    def cut(self, fs: RecordingFs) -> None:
        for state in fs.states():
            self.num_states += 1
            self.faults |= self.judge(state)

    def judge(self, state: RecordingFs) -> set[str]:
        try:
            choice = choose_checkpoint(state, ROOT)
        except CheckpointError as err:
            is_fault = self.returned > 0 or not isinstance(err, NoCheckpointFound)
            return {f"nothing: {type(err).__name__}"} if is_fault else set()
        step = choice.manifest.step
        faults = {f"damaged: {name}" for name, _ in choice.rejections}
        if not self.returned <= step <= self.started:
            faults.add(f"step {step} after {self.returned}")
        if self.has_step_2 and not has_step_2(state):
            faults.add("step 2 is lost")
        return faults


def has_step_2(state: RecordingFs) -> bool:
    for folder in (ROOT, ROOT / "archive" / "s0"):
        with contextlib.suppress(CheckpointError):
            return verify_checkpoint(state, folder / "step-00000002").step == 2
    return False


def saves(store: CheckpointStore, power: Power, *steps: int) -> None:
    for step in steps:
        power.started = step
        store.save(make_snapshot(step, replay=b"{}\n"))
        power.returned = step


def save_twice(fs: RecordingFs, power: Power) -> None:
    saves(make_store(ROOT, fs), power, 1, 2)


def save_and_evict(fs: RecordingFs, power: Power) -> None:
    saves(make_store(ROOT, fs, max_retained=1), power, 1, 2)


def save_and_rewind(fs: RecordingFs, power: Power) -> None:
    store = make_store(ROOT, fs)
    saves(store, power, 1, 2)
    power.returned, power.has_step_2 = 1, True
    store.rewind(1)
    power.started = 1


Scenario = Callable[[RecordingFs, Power], None]


def observed(scenario: Scenario, left_out: int | None = None) -> Power:
    power = Power()
    fs = RecordingFs(left_out=left_out, on_change=power.cut)
    scenario(fs, power)
    power.cut(fs)
    return power


def num_syncs(scenario: Scenario) -> int:
    fs = RecordingFs()
    scenario(fs, Power())
    return fs.num_syncs


@pytest.mark.parametrize("scenario", [save_twice, save_and_evict, save_and_rewind])
def test_nothing_is_lost_by_a_power_cut_at_any_moment(scenario: Scenario) -> None:
    """No cut leaves a wrong or damaged checkpoint, or none that is as new as the last one saved."""
    power = observed(scenario)
    assert power.faults == set()
    assert power.num_states > 70


@pytest.mark.parametrize("left_out", range(num_syncs(save_twice)))
def test_every_fsync_of_a_save_is_needed(left_out: int) -> None:
    """Without any one of them, some power cut loses a checkpoint or leaves a damaged one."""
    assert observed(save_twice, left_out).faults != set()


def test_fsync_before_files_of_an_old_checkpoint_go_is_needed() -> None:
    """Without it, a power cut may leave an old checkpoint with some of its files."""
    last = num_syncs(save_and_evict) - 1
    assert observed(save_and_evict, last).faults == {"damaged: step-00000001"}


# The other two make sure of an order that file systems with a journal keep anyway.
@pytest.mark.parametrize("back", [1, 3])
def test_fsyncs_of_a_rewind_are_needed(back: int) -> None:
    """Without one of them, a power cut loses a checkpoint or undoes the rewind."""
    left_out = num_syncs(save_and_rewind) - back
    assert observed(save_and_rewind, left_out).faults != set()
