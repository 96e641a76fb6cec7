"""Checkpoints that several ranks write together, here threads with memory of their own."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lightning_elche.partition.errors import CheckpointError, DivergentWriters, WriteFailed
from lightning_elche.partition.fs import Fs, LocalFs
from lightning_elche.partition.image import HostTensor
from lightning_elche.partition.manifest import encode_manifest
from lightning_elche.partition.plan import PartitionPlan
from lightning_elche.partition.read_checkpoint import read_checkpoint, verify_checkpoint
from lightning_elche.partition.read_root import choose_checkpoint
from lightning_elche.partition.store_ranks import KEPT, RankSeal
from lightning_elche.partition.store_shared import save_together, set_aside_together
from lightning_elche.partition.store_snapshot import Snapshot
from lightning_elche.partition.tree import decode_tree, encode_tree
from lightning_elche.testing import FaultFs
from tests.distributed.threads import FakeGroup, outcomes_of
from tests.partition.states import make_snapshot, make_store, names_in

FS = LocalFs()


class Peer:
    """The side of one rank."""

    def __init__(self, group: FakeGroup, rank: int) -> None:
        self.group, self.rank, self.world_size = group, rank, group.world_size

    def swap(self, message: Mapping[str, Any]) -> list[Mapping[str, Any]]:
        return self.group.swap(self.rank, message)


def state_of(step: int, count: int, **options: Any) -> Snapshot:
    groups = {
        "model": [HostTensor.of("w", np.arange(40_000, dtype=np.float32) + step)],
        "optimizer-0": [HostTensor.of("m", np.arange(30_000, dtype=np.float64))],
        "aux": [HostTensor.of("/rng", np.arange(9, dtype=np.uint8))],
    }
    plan = PartitionPlan.row_ranges(7, count)
    return make_snapshot(step, **{"groups": groups, "plan": plan, **options})


def own_rows(state: Snapshot, peer: Peer, *, is_sharded: bool) -> RankSeal:
    """The seal of a rank in whose memory all other rows are spoiled."""
    whole = RankSeal(state, is_sharded=is_sharded, peers=peer)
    groups = {}
    for group, tensors in state.groups.items():
        groups[group] = []
        for one in tensors:
            data = np.full(one.data.nbytes, 0xA5, dtype=np.uint8)
            for start, end in whole.own_ranges().get((group, one.name), ()):
                data[start:end] = one.data[start:end]
            groups[group].append(HostTensor(**{**vars(one), "data": data.data}))
    own = Snapshot(**{**vars(state), "groups": groups})
    return RankSeal(own, is_sharded=is_sharded, peers=peer)


def save(
    root: Path,
    states: Sequence[Snapshot],
    *,
    fs: Callable[[int], Fs] = lambda _: FS,
    together: Callable[..., Any] = save_together,
    **options: Any,
) -> list[Any]:
    """Return what each rank gets, or its error."""
    group = FakeGroup(len(states))

    def run(rank: int) -> object:
        store = make_store(root, fs(rank), pid=100 + rank, **options)
        is_sharded = store.placing.is_sharded(states[rank])
        seal = own_rows(states[rank], Peer(group, rank), is_sharded=is_sharded)
        return together(store, seal)

    return outcomes_of(len(states), run)


@pytest.mark.parametrize("layout", ["single", "sharded"])
@pytest.mark.parametrize(("world_size", "count"), [(1, 3), (2, 2), (3, 3), (3, 2), (2, 5)])
def test_ranks_write_what_one_process_writes(
    tmp_path: Path, world_size: int, count: int, layout: str
) -> None:
    """Each from its own rows alone: the manifest has the same bytes, with the digest of each file.

    All ranks are told of it.
    """
    state = state_of(3, count)
    told = save(tmp_path / "ranks", [state] * world_size, layout=layout)
    alone = make_store(tmp_path / "alone", layout=layout).save(state)
    expected = (alone.path / "manifest.json").read_bytes()
    assert [encode_manifest(one.manifest) for one in told] == [expected] * world_size
    together = verify_checkpoint(FS, tmp_path / "ranks" / "step-00000003", "deep")
    assert encode_manifest(together) == expected


def test_parts_of_several_hosts_are_files_of_their_own(tmp_path: Path) -> None:
    """Two machines do not share the pages of a file."""
    save(tmp_path, [state_of(3, 2, num_hosts=2)] * 2)
    names = names_in(tmp_path / "step-00000003")
    assert [name for name in names if "part" in name] == [
        "aux.part-0000",
        "model.part-0000",
        "optimizer-0.part-0000",
        "optimizer-0.part-0001",
    ]


@pytest.mark.parametrize(("failing", "kind", "stride"), [(0, "EIO", 5), (2, "ENOSPC", 1)])
def test_rank_that_cannot_write_fails_all_and_nothing_is_lost(
    tmp_path: Path, failing: int, kind: str, stride: int
) -> None:
    """At any of its operations; an fsync that fails once is made good by a second attempt."""
    for at in itertools.count(0, stride):
        root = tmp_path / str(at)
        make_store(root).save(state_of(1, 1))
        fault = FaultFs(FS, at=at, kind=kind)
        told = save(
            root,
            [state_of(2, 3)] * 3,
            fs=lambda rank, own=fault: own if rank == failing else FS,
            max_retained=1,
        )
        if fault.failed is None:
            break
        errors = [one for one in told if isinstance(one, CheckpointError)]
        assert len(errors) in (0, 3), (at, told)
        newest = choose_checkpoint(FS, root).path
        verify_checkpoint(FS, newest, "deep")
        assert newest.name == "step-00000002" or errors, at
        assert not fault.open, at
        again = save(root, [state_of(2, 3)] * 3, max_retained=1)
        assert {one.path.name for one in again} == {"step-00000002"}
        assert names_in(root) == ["step-00000002"]
    assert at >= 4


def test_error_names_the_rank(tmp_path: Path) -> None:
    """All ranks raise the same, with the number of the system's error."""
    told = save(
        tmp_path,
        [state_of(2, 2)] * 2,
        fs=lambda rank: FaultFs(FS, at=1, kind="ENOSPC") if rank else FS,
    )
    assert [type(one) for one in told] == [WriteFailed] * 2
    assert {(one.errno, str(one)) for one in told} == {(28, str(told[0]))}
    assert "rank 1: " in str(told[0])


def test_other_state_of_the_same_step_is_refused_on_all_ranks(tmp_path: Path) -> None:
    """The first one stays."""
    save(tmp_path, [state_of(2, 2)] * 2)
    same = save(tmp_path, [state_of(2, 2)] * 2)
    other = save(tmp_path, [state_of(2, 2, tree=encode_tree({"epoch": 9}).data)] * 2)
    assert [one.is_new for one in same] == [False, False]
    assert [type(one) for one in other] == [DivergentWriters] * 2
    assert len(names_in(tmp_path / "quarantine")) == 1


def test_nan_in_the_rows_of_any_rank_is_seen(tmp_path: Path) -> None:
    """Such a state is not resumed from."""
    weight = np.arange(40_000, dtype=np.float32)
    weight[-1] = np.nan
    groups = {"model": [HostTensor.of("w", weight)]}
    state = make_snapshot(2, groups=groups, plan=PartitionPlan.row_ranges(3, 3))
    assert [one.manifest.finite for one in save(tmp_path, [state] * 3)] == [False] * 3


def test_state_may_be_set_aside(tmp_path: Path) -> None:
    """All ranks know where it is."""
    told = save(tmp_path, [state_of(2, 2)] * 2, together=set_aside_together)
    assert told == [tmp_path / "quarantine" / "diverged-step-00000002"] * 2
    verify_checkpoint(FS, told[0], "deep")


def kept_of(rank: int) -> Snapshot:
    group = f"optimizer-0@r{rank}"
    name = "m" if rank < 2 else "other"
    moment = HostTensor.of(name, np.full(3, rank, dtype=np.float32))
    tree = encode_tree({"optimizer_states": [{"rank": rank}], "epoch": 2}).data
    plan = PartitionPlan.row_ranges(1, 1)
    model = HostTensor.of("w", np.arange(3, dtype=np.float32))
    return make_snapshot(2, groups={"model": [model], group: [moment]}, plan=plan, tree=tree)


def test_what_each_rank_keeps_is_stored_by_its_owner(tmp_path: Path) -> None:
    """Its tensors, of whatever names, and the rest of its state in the tree."""
    told = save(tmp_path, [kept_of(rank) for rank in range(3)])
    found = read_checkpoint(FS, told[1].path)
    values = {
        name: {key: own.array().tolist() for key, own in group.items()}
        for name, group in found.groups.items()
        if "@" in name
    }
    assert values == {
        "optimizer-0@r0": {"m": [0.0] * 3},
        "optimizer-0@r1": {"m": [1.0] * 3},
        "optimizer-0@r2": {"other": [2.0] * 3},
    }
    assert decode_tree(found.tree) == {
        "optimizer_states": [{"rank": 0}],
        "epoch": 2,
        KEPT: {"1": [{"rank": 1}], "2": [{"rank": 2}]},
    }
