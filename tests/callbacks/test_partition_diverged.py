"""Several ranks of which one goes wrong: all hear of it, and the state is set aside."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from lightning_elche.partition.fs import this_host
from lightning_elche.partition.read_checkpoint import verify_checkpoint
from lightning_elche.testing import run_ranks
from tests.callbacks.diverging import fail_under_ddp, verify_others
from tests.callbacks.partitioned import names_in

pytestmark = pytest.mark.slow


def test_ranks_that_diverge_leave_their_state_in_quarantine(tmp_path: Path) -> None:
    """Under ElCheStrategy that of the rank whose replica is wrong, before it is averaged.

    Under DDP all ranks end, also those that have not diverged themselves. With "warn" a run goes on
    by the recorded schedule, whatever its losses are.
    """
    ranks = run_ranks(
        verify_others,
        world_size=2,
        timeout_s=90.0,
        env={"ELCHE_DELAYS_SEED": ""},
        root=str(tmp_path),
    )
    told = [one.value for one in ranks]
    assert all("LocatedDivergence" in one["elche"] and "rank 1" in one["elche"] for one in told)
    (name,) = os.listdir(tmp_path / "elche-other" / "quarantine")
    assert name.startswith("diverged-step-")
    assert name.endswith("-rank1")
    verify_checkpoint(this_host().fs, tmp_path / "elche-other" / "quarantine" / name, "deep")
    assert told[0]["ddp"].startswith("ReplayError: replay of another rank diverged at step 5")
    assert told[1]["ddp"].startswith("LocatedDivergence: ")
    assert os.listdir(tmp_path / "ddp-other" / "quarantine") == ["diverged-step-00000005"]
    assert [(one["warned"], one["warnings"]) for one in told] == [("", 1), ("", 1)]


def test_all_ranks_of_ddp_hear_that_rank_0_cannot_write(tmp_path: Path) -> None:
    """None of them waits for gradients of a rank that has ended."""
    ranks = run_ranks(fail_under_ddp, world_size=2, timeout_s=60.0, root=str(tmp_path))
    errors = [one.value for one in ranks]
    assert errors[0].startswith("WriteFailed: ")
    assert errors[1].startswith("RankFailed: Rank 0 failed with checkpoint ")
    assert names_in(tmp_path) == ["step-00000002"]
