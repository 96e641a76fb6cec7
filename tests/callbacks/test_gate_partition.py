"""A training contract whose checkpoints a PartitionCheckpoint writes."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from lightning_elche import CadenceConfig, ElCheStrategy
from lightning_elche.cli.main import main
from lightning_elche.exceptions import GateViolation
from lightning_elche.partition.fs import LocalFs
from lightning_elche.testing import run_ranks
from tests.callbacks.gated import Scripted, fit_gated, lines_of, run_of, violation_of_fit
from tests.callbacks.partitioned import names_in, saver_of

LOSSES = (3.0, 2.0, 1.9)
CHECKPOINT = "partition/step-00000020-epoch-1"
FILES = (
    f"{CHECKPOINT}/manifest.json",
    f"{CHECKPOINT}/model.safetensors",
    f"{CHECKPOINT}/optimizer-0.safetensors",
    f"{CHECKPOINT}/replay.jsonl",
    f"{CHECKPOINT}/tree.json",
    "ckpt/epoch-001.ckpt",
)


def partitioned(run_dir: Path, *, model: Scripted | None = None, **options: Any) -> dict[str, Any]:
    """Return the options of a fit."""
    return {
        "model": model or Scripted(LOSSES),
        "gate": {"checkpoint": "partition", **options.pop("gate", {})},
        "callbacks": [saver_of(run_dir / "partition", every=None)],
        "enable_checkpointing": True,
        "max_epochs": 2,
        **options,
    }


def fit(run_dir: Path, **options: Any) -> None:
    fit_gated(run_dir, **partitioned(run_dir, **options))


def check(run_dir: Path) -> int:
    """Return the exit code of the checker."""
    return main(["contract", "check", str(run_dir), "--no-deep"])


def metadata_of(run_dir: Path, epoch: int) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(
        (run_dir / f"ckpt/epoch-{epoch:03d}.metadata.json").read_text()
    )
    return found


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run of two epochs."""
    folder = tmp_path_factory.mktemp("trained")
    fit(folder)
    return folder


@pytest.fixture
def run_dir(trained: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    return Path(shutil.copytree(trained, tmp_path / "run"))


def test_run_passes_without_opening_a_pickle(run_dir: Path) -> None:
    """Its epochs are labelled checkpoints, and the checker needs nothing but their files."""
    assert check(run_dir) == 0
    assert names_in(run_dir / "partition") == ["step-00000010-epoch-0", "step-00000020-epoch-1"]


def test_metadata_are_those_of_the_manifest(run_dir: Path) -> None:
    """The digest of the optimizer is what `sha256sum` prints for its file."""
    told = metadata_of(run_dir, 1)
    manifest = json.loads((run_dir / CHECKPOINT / "manifest.json").read_text())
    assert told["optimizer_state_sha"] == manifest["files"]["optimizer-0.safetensors"]["sha256"]
    assert told["checkpoint_sha256"] == manifest["content_sha256"]
    # Two moments of 97 parameters and 6 counters, in 32 bits each.
    assert (told["optimizer_state_algo"], told["optimizer_state_bytes"]) == ("file-sha256", 800)


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("place", [0.0, 0.5, 1.0])
def test_changed_byte_fails_the_check(
    file: str, place: float, run_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Wherever it is; the file is named."""
    content = bytearray((run_dir / file).read_bytes()) or bytearray(b"?")
    content[int(place * (len(content) - 1))] ^= 1
    (run_dir / file).write_bytes(content)
    assert check(run_dir) == 1
    failed = [line for line in capsys.readouterr().out.splitlines() if line.startswith("FAIL  ")]
    assert failed[0].startswith("FAIL          GATE-TRAIN-002: ")
    assert f"{file}: " in failed[0]


def test_checkpoint_of_another_epoch_fails_the_check(
    run_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Though it is whole."""
    shutil.copy(run_dir / "ckpt/epoch-000.ckpt", run_dir / "ckpt/epoch-001.ckpt")
    assert check(run_dir) == 1
    assert "step-00000010-epoch-0: is labelled 'epoch-0', not 'epoch-1'" in capsys.readouterr().out


class Plain(Scripted):
    """Has an optimizer without any tensor."""

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=1e-5)


def test_optimizer_without_tensors_has_the_digest_of_the_tree(tmp_path: Path) -> None:
    """Which holds its groups."""
    fit(tmp_path, model=Plain(LOSSES))
    told = metadata_of(tmp_path, 1)
    manifest = json.loads((tmp_path / CHECKPOINT / "manifest.json").read_text())
    assert (told["optimizer_state_bytes"], check(tmp_path)) == (0, 0)
    assert told["optimizer_state_sha"] == manifest["files"]["tree.json"]["sha256"]


def test_resumed_run_passes(run_dir: Path) -> None:
    """It adds its epochs to those before."""
    options = partitioned(run_dir, max_epochs=3, ckpt_path=str(run_dir / "partition"))
    fit_gated(run_dir, **options)
    assert (run_of(run_dir)["attempt"], run_of(run_dir)["epochs_completed"]) == (1, 3)
    assert check(run_dir) == 0
    digest = options["callbacks"][0].optimizer_state_sha(30, "epoch-2")
    assert digest == metadata_of(run_dir, 2)["optimizer_state_sha"]


@pytest.mark.filterwarnings("ignore:An artifact of epoch")
def test_failed_write_is_told_and_training_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run fails at its end, and the other epoch has its checkpoint."""
    rename = LocalFs.rename

    def fail(fs: LocalFs, source: Path, target: Path) -> None:
        if target.name == "step-00000010-epoch-0":
            raise OSError(28, os.strerror(28))
        rename(fs, source, target)

    monkeypatch.setattr(LocalFs, "rename", fail)
    assert violation_of_fit(tmp_path, **partitioned(tmp_path)).exit_code == 22
    events = [line["event"] for line in lines_of(tmp_path / "events.jsonl")]
    assert (events.count("CKPT_FAILED"), check(tmp_path)) == (1, 1)
    assert names_in(tmp_path / "partition") == ["step-00000020-epoch-1"]


def test_partition_checkpoint_is_needed(tmp_path: Path) -> None:
    """Exactly one, in the folder of the run."""
    gate = {"checkpoint": "partition"}
    with pytest.raises(ValueError, match=r'`checkpoint="partition"` must have one .* got 0'):
        fit_gated(tmp_path / "run", gate=gate)
    outside = [saver_of(tmp_path / "elsewhere")]
    with pytest.raises(ValueError, match=r"`PartitionCheckpoint\(dirpath\)` must lie in `run_dir`"):
        fit_gated(tmp_path / "run", gate=gate, callbacks=outside, enable_checkpointing=True)


def test_fast_dev_run_saves_nothing(tmp_path: Path) -> None:
    """As PartitionCheckpoint does, and fails no sooner than at the check."""
    fit(tmp_path, fast_dev_run=True)
    assert not (tmp_path / "ckpt").exists()


def train_ranks(folder: str, kind: str) -> int | None:
    """Return the code of the violation that has ended the run of this rank."""
    run_dir = Path(folder)
    strategy = (
        "ddp"
        if kind == "ddp"
        else ElCheStrategy(cadence=CadenceConfig(anchor=2, max_anchor=2), timeout_s=30.0)
    )
    if kind == "broken" and os.environ["RANK"] == "1":
        LocalFs.pwrite = refuse  # type: ignore[method-assign]
    try:
        fit(run_dir, devices=2, strategy=strategy)
    except GateViolation as err:
        return err.exit_code
    return None


def refuse(*_: Any) -> int:
    raise OSError(28, os.strerror(28))


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "code"), [("elche", None), ("broken", 22)])
@pytest.mark.filterwarnings("ignore:An artifact of epoch")
def test_ranks_save_the_checkpoints_of_epochs_together(
    kind: str, code: int | None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Or fail together at the end, if one of them cannot write."""
    ranks = run_ranks(train_ranks, world_size=2, timeout_s=60.0, folder=str(tmp_path), kind=kind)
    assert [rank.value for rank in ranks] == [code, code]
    assert check(tmp_path) == (0 if code is None else 1)
    if code is None:
        changed = next(tmp_path.glob("partition/*-epoch-1/model.safetensors"))
        changed.write_bytes(changed.read_bytes()[:-1] + b"?")
        assert check(tmp_path) == 1
        assert f"{changed.relative_to(tmp_path)}: its digest is not" in capsys.readouterr().out
