"""The verb `export` of `elche checkpoint`."""

from __future__ import annotations

import hashlib
import json
import resource
import warnings
from pathlib import Path
from typing import Any

import lightning.pytorch
import pytest
import torch
from lightning.pytorch.demos.boring_classes import BoringModel
from torch.distributed.checkpoint import state_dict_loader

from lightning_elche.cli.main import main
from lightning_elche.ops.tensor_state import split_state
from lightning_elche.partition.image import HostTensor
from tests.partition.states import make_snapshot, make_store, names_in


def save(root: Path, state: dict[str, Any]) -> Path:
    """Save a state as a checkpoint."""
    split = split_state(state)
    groups = {
        name: [
            HostTensor.of(one.name, one.tensor.numpy(), alias_of=one.alias_of) for one in tensors
        ]
        for name, tensors in split.groups.items()
    }
    return make_store(root).save(make_snapshot(7, groups=groups, tree=split.tree)).path


def make_state() -> dict[str, Any]:
    tied = torch.arange(6.0).reshape(2, 3)
    return {
        "epoch": 3,
        "state_dict": {"a": tied, "b": tied},
        "optimizer_states": [
            {"state": {0: {"step": torch.tensor(4.0)}}, "param_groups": [{"lr": 0.5}]}
        ],
    }


def export(path: Path, kind: str, out: Path) -> int:
    return main(["checkpoint", "export", str(path), "--to", kind, str(out)])


def test_file_holds_the_state(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Tied tensors are still tied, and torch reads it without running code."""
    path, out = save(tmp_path / "root", make_state()), tmp_path / "a.ckpt"
    assert export(path, "ckpt", out) == 0
    state = torch.load(out, weights_only=True)
    torch.testing.assert_close(state, make_state(), rtol=0, atol=0)
    assert state["state_dict"]["a"].data_ptr() == state["state_dict"]["b"].data_ptr()
    assert capsys.readouterr().out == f"{out}\n"


def test_lightning_loads_the_file(tmp_path: Path) -> None:
    """As one of its own."""
    model = BoringModel()
    weights = {name: value.detach() for name, value in model.state_dict().items()}
    state = {"state_dict": weights, "pytorch-lightning_version": lightning.pytorch.__version__}
    assert export(save(tmp_path / "root", state), "ckpt", tmp_path / "a.ckpt") == 0
    loaded = BoringModel.load_from_checkpoint(tmp_path / "a.ckpt", weights_only=True)
    assert torch.equal(loaded.layer.weight, model.layer.weight)


def test_distributed_checkpoint_holds_the_state(tmp_path: Path) -> None:
    """It is loaded into a state of the same shape."""
    path, out = save(tmp_path / "root", make_state()), tmp_path / "dcp"
    assert export(path, "dcp", out) == 0
    state = make_state()
    for tensor in (state["state_dict"]["a"], state["optimizer_states"][0]["state"][0]["step"]):
        tensor.zero_()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that this is a single process
        state_dict_loader.load(state, checkpoint_id=out)
    torch.testing.assert_close(state, make_state(), rtol=0, atol=0)


def test_statement_has_the_digest_of_each_file(tmp_path: Path) -> None:
    """And one of all digests, in the order of names."""
    path, out = save(tmp_path / "root", make_state()), tmp_path / "statement.json"
    assert export(path, "oms", out) == 0
    statement = json.loads(out.read_bytes())
    hashes = {name: hashlib.sha256((path / name).read_bytes()) for name in names_in(path)}
    assert statement["predicate"]["resources"] == [
        {"name": name, "algorithm": "sha256", "digest": one.hexdigest()}
        for name, one in hashes.items()
    ]
    whole = hashlib.sha256(b"".join(one.digest() for one in hashes.values())).hexdigest()
    assert statement["subject"] == [{"name": "step-00000007", "digest": {"sha256": whole}}]
    assert statement["predicateType"] == "https://model_signing/signature/v1.0"


@pytest.mark.parametrize("kind", ["ckpt", "dcp", "oms"])
def test_corrupt_checkpoint_is_not_exported(tmp_path: Path, kind: str) -> None:
    """Exit code 1, and nothing is written."""
    path = save(tmp_path / "root", make_state())
    image = path / "model.safetensors"
    image.write_bytes(image.read_bytes()[:-1] + b"\x7f")
    assert export(path, kind, tmp_path / "out") == 1
    assert names_in(tmp_path) == ["root"]


@pytest.mark.parametrize(
    "tree",
    [
        b'{"state_dict":{"w":{"$t":"model/other"}}}',
        b'{"a":{"$device":"nowhere"}}',
        b'{"a":{"$dtype":"nothing"}}',
        b'{"elche.state_dict_versions":{}}',
        b'{"a":{"$no":1}}',
        b"[]",
        b"null",
    ],
)
def test_state_that_no_run_has_is_not_exported(
    tmp_path: Path, tree: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit code 1, although all digests are right."""
    path = make_store(tmp_path / "root").save(make_snapshot(1, tree=tree)).path
    assert export(path, "ckpt", tmp_path / "out") == 1
    assert f"checkpoint {path} is corrupt: it is not that of a state" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["file", "folder", "link", "root/step-00000007/out"])
def test_nothing_is_overwritten(
    tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit code 2; and a file in the checkpoint would make it corrupt."""
    path = save(tmp_path / "root", make_state())
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    assert export(path, "oms", tmp_path / name) == 2
    assert "`OUT` must " in capsys.readouterr().err
    assert main(["checkpoint", "verify", str(path)]) == 0


@pytest.mark.parametrize("kind", ["ckpt", "dcp", "oms"])
def test_failed_write_leaves_nothing(
    tmp_path: Path, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Here files may have no more than 100 bytes; exit code 3."""
    path = save(tmp_path / "root", make_state())
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard))
    try:
        code = export(path, kind, tmp_path / "out")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert (code, names_in(tmp_path)) == (3, ["root"])
    assert capsys.readouterr().err.startswith("elche: ")


def test_missing_folder_is_exit_code_three(tmp_path: Path) -> None:
    """Of the result, or of the checkpoint."""
    path = save(tmp_path / "root", make_state())
    assert export(path, "oms", tmp_path / "nowhere" / "out") == 3
    assert export(tmp_path / "nowhere", "oms", tmp_path / "out") == 3


def test_state_of_one_rank_is_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Which is said."""
    group = [HostTensor.of("w.m", torch.ones(2).numpy())]
    snapshot = make_snapshot(1, groups={"model": [], "optimizer-0@r1": group})
    path = make_store(tmp_path / "root").save(snapshot).path
    assert export(path, "ckpt", tmp_path / "out") == 0
    assert "elche: group optimizer-0@r1 is that of one rank" in capsys.readouterr().err
