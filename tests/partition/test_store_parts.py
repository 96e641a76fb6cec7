"""Parts that several processes write into one checkpoint."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from lightning_elche.partition.fs import LocalFs
from lightning_elche.partition.image import HostTensor, pieces
from lightning_elche.partition.manifest import REPLAY, TREE, encode_manifest
from lightning_elche.partition.plan import PartitionPlan
from lightning_elche.partition.publish import Publisher, chunks
from lightning_elche.partition.read_checkpoint import verify_checkpoint
from lightning_elche.partition.rml import tensor_lanes
from lightning_elche.partition.store_parts import (
    PlacedPart,
    Receipt,
    file_records,
    group_records,
    place_parts,
    sha256_of_files,
    write_part,
)
from lightning_elche.partition.store_seal import manifest_of
from lightning_elche.partition.store_snapshot import Snapshot
from tests.partition.states import make_snapshot, make_store

FS = LocalFs()


def big_state(count: int) -> Snapshot:
    groups = {
        "model": [HostTensor.of("w", np.arange(40_000, dtype=np.float32))],
        "optimizer-0": [HostTensor.of("m", np.arange(30_000, dtype=np.float64))],
        "aux": [HostTensor.of("/rng", np.arange(9, dtype=np.uint8))],
    }
    return make_snapshot(3, groups=groups, plan=PartitionPlan.row_ranges(7, count))


def write_own(state: Snapshot, folder: Path, placed: PlacedPart) -> Receipt:
    """What a rank does: it opens a file that is there, and writes its rows."""
    tensors = {one.name: one for one in state.groups[placed.group]}
    start, size = placed.part.offset, placed.part.nbytes
    layout = state.layouts()[placed.group]
    data = chunks(pieces(layout, tensors.values(), start=start, stop=start + size))
    descriptor = FS.open_write(folder / placed.file)
    sha256 = write_part(FS, descriptor, placed.offset, data)
    FS.fsync(descriptor)
    FS.close(descriptor)
    lanes = []
    for cut in placed.part.cuts:
        one, rows = cut.tensor, tensors[cut.tensor.name].data[cut.byte_start : cut.byte_end]
        own = tensor_lanes(one.full_name, one.dtype, one.shape, rows, first_row=cut.first_row)
        lanes.append(own)
    return Receipt(sha256, tuple(lanes))


@pytest.mark.parametrize("is_sharded", [False, True])
@pytest.mark.parametrize("count", [1, 3])
def test_ranks_write_the_checkpoint_of_one_process(
    tmp_path: Path, count: int, is_sharded: bool
) -> None:
    """Parts written apart, in any order, make up the same manifest as those of one process."""
    state = big_state(count)
    publisher, layouts = Publisher(fs=FS), state.layouts()
    publisher.make_root(tmp_path / "ranks")
    placed = place_parts(layouts, state.plan, is_sharded=is_sharded)

    def fill(folder: Path) -> bytes:
        files = dict.fromkeys(part.file for part in placed)
        with publisher.open_files([folder / name for name in files]):
            written = {part: write_own(state, folder, part) for part in reversed(placed)}
        receipts = {part: written[part] for part in placed}
        digests = {
            name: sha256_of_files(FS, [folder / f for f in files if f.startswith(f"{name}.")])
            for name in layouts
        }
        groups = group_records(layouts, receipts, digests, plan=state.plan, step=state.step)
        records = {
            **file_records(groups),
            TREE: publisher.write_file(folder / TREE, state.tree),
            REPLAY: publisher.write_file(folder / REPLAY, state.replay),
        }
        told = {"sequence": 1, "created": "2027-01-15T08:00:00+00:00"}
        return encode_manifest(
            manifest_of(state, groups, records, finite=True, is_durable=True, **told)
        )

    publisher.publish(tmp_path / "ranks" / "step-00000003", lambda: ".tmp", fill)
    layout = "sharded" if is_sharded else "single"
    alone = make_store(tmp_path / "alone", layout=layout).save(state)
    together = verify_checkpoint(FS, tmp_path / "ranks" / "step-00000003", "deep")
    assert encode_manifest(together) == (alone.path / "manifest.json").read_bytes()
