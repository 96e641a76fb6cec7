"""Checkpoints of which workers elsewhere store partitions, too."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from lightning_elche.partition.errors import WriteFailed
from lightning_elche.partition.executor import PartitionTask, PartitionTaskResult, run_task
from lightning_elche.partition.fs import this_host
from lightning_elche.partition.read_checkpoint import verify_checkpoint
from lightning_elche.partition.worker import PartitionBackend, PartitionConfig, PartitionWorker
from lightning_elche.strategies.checkpoint_io import PartitionCheckpointIO, SaveOptions
from tests.partition.http_worker import serving
from tests.partition.states import names_in

STATE: dict[str, Any] = {
    "state_dict": {"a": torch.arange(3.0), "b": torch.arange(3.0) + 7.0},
    "global_step": 5,
}


def bytes_of(*tensors: torch.Tensor) -> bytes:
    return b"".join(tensor.numpy().tobytes() for tensor in tensors)


def save(root: Path, *workers: PartitionWorker, **options: Any) -> Path:
    config = PartitionConfig(workers=workers, **options)
    path = root / "step-00000005"
    told = SaveOptions(details={"run_id": "run", "segment": "s"})
    PartitionCheckpointIO(partitions=config).save_checkpoint(STATE, path, told)
    return path


def test_external_workers_store_their_rows_and_files_hold_all(tmp_path: Path) -> None:
    """One over HTTP, which answers badly at first, and one in a file system."""
    with serving() as worker:
        worker.faults["statuses"] = [503]
        http = PartitionWorker.external("http", worker.endpoint)
        files = PartitionWorker.external("files", (tmp_path / "far").as_uri())
        path = save(tmp_path / "near", http, files, retries=1)
    assert worker.stored == {"/base/v1/run/5/0": bytes_of(STATE["state_dict"]["a"])}
    assert worker.requests == [("PUT", "/base/v1/run/5/0")] * 2
    (part,) = (tmp_path / "far" / "run" / "step-00000005").iterdir()
    assert part.read_bytes() == bytes_of(STATE["state_dict"]["b"])
    manifest = verify_checkpoint(this_host().fs, path, "deep")
    assert [one.worker for one in manifest.plan.assignments] == ["http", "files"]


def test_worker_that_is_not_there_fails_the_checkpoint(tmp_path: Path) -> None:
    """What another machine was to keep is not taken for kept."""
    nobody = PartitionWorker.external("nobody", "http://127.0.0.1:9/")
    with pytest.raises(WriteFailed, match="partition"):
        save(tmp_path, nobody, timeout_s=5.0, retries=0)
    assert not tmp_path.exists() or names_in(tmp_path) == []


class Remembers:
    """An executor of the user."""

    def __init__(self) -> None:
        self.rows: list[bytes] = []

    def supports(self, backend: PartitionBackend) -> bool:
        return backend.kind == "local_cpu"

    def execute(self, tasks: list[PartitionTask]) -> list[PartitionTaskResult]:
        self.rows = [task.payload.state.to_bytes() for task in tasks]
        return [run_task(task) for task in tasks]


def test_executor_of_the_user_gets_all_partitions(tmp_path: Path) -> None:
    """Before the checkpoint is in its place."""
    executor = Remembers()
    save(tmp_path, executor=executor, count=2)
    weights = STATE["state_dict"]
    assert executor.rows == [bytes_of(weights["a"]), bytes_of(weights["b"])]
