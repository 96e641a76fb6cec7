"""What is written once per run or epoch."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lightning_elche.contracts.model import Contract
from lightning_elche.contracts.runfolder.artifacts import (
    supersede_epochs,
    write_contract_copy,
    write_epoch,
)
from lightning_elche.contracts.template import PathTemplate
from tests.contracts.epochs import epoch_record

DEFAULT = Contract.default()


def test_metadata_have_32_bit_numbers_and_nothing_that_is_unknown(tmp_path: Path) -> None:
    """A loss is written as 32 bits hold it, a duration as it is, and `None` not at all."""
    path = tmp_path / "new" / "epoch.json"
    write_epoch(path, epoch_record(0, val_loss=0.1, val_ppl=1.25, wall_seconds=0.1))
    facts = json.loads(path.read_text())
    assert (facts["val_loss"], facts["wall_seconds"]) == (0.100000001, 0.1)
    assert "run_id" not in facts


def test_copy_of_the_contract_is_the_same_byte_by_byte(tmp_path: Path) -> None:
    """Comments, line ends and all."""
    write_contract_copy(tmp_path, b"a: 1 # \xc3\xa9\r\n")
    assert (tmp_path / "contract.yaml").read_bytes() == b"a: 1 # \xc3\xa9\r\n"


def files_in(folder: Path) -> list[str]:
    found = (one for one in folder.rglob("*") if one.is_file())
    return sorted(one.relative_to(folder).as_posix() for one in found)


def test_epochs_that_are_trained_again_are_moved_away(tmp_path: Path) -> None:
    """Checkpoints and metadata from that epoch on, and nothing else."""
    folder = tmp_path / "ckpt"
    folder.mkdir()
    for name in ("epoch-000.ckpt", "epoch-001.ckpt", "epoch-001.metadata.json", "last.ckpt"):
        (folder / name).touch()
    moved = supersede_epochs(tmp_path, DEFAULT, from_epoch=1, attempt=2)
    assert files_in(folder) == [
        "epoch-000.ckpt",
        "last.ckpt",
        "superseded/attempt-2/epoch-001.ckpt",
        "superseded/attempt-2/epoch-001.metadata.json",
    ]
    assert len(moved) == 2


def test_epochs_that_were_moved_away_stay_where_they_are(tmp_path: Path) -> None:
    """Also if the files of epochs lie in the folder of the run itself."""
    template = PathTemplate.parse("{run_dir}/{epoch}/model.ckpt")
    contract = Contract(
        contract_id="C", version="1.0.0", kind="x", family="B", checkpoint_template=template
    )
    for attempt in (1, 2):
        template.format(0, tmp_path).parent.mkdir(exist_ok=True)
        template.format(0, tmp_path).touch()
        supersede_epochs(tmp_path, contract, from_epoch=0, attempt=attempt)
    assert files_in(tmp_path) == [
        "superseded/attempt-1/0/model.ckpt",
        "superseded/attempt-2/0/model.ckpt",
    ]


def test_nothing_is_overwritten_by_an_attempt_with_a_used_number(tmp_path: Path) -> None:
    """Evidence is never lost: a number that was counted wrongly is an error."""
    (tmp_path / "ckpt").mkdir()
    for _ in range(2):
        (tmp_path / "ckpt" / "epoch-000.ckpt").touch()
        if (tmp_path / "ckpt" / "superseded").exists():
            break
        supersede_epochs(tmp_path, DEFAULT, from_epoch=0, attempt=1)
    with pytest.raises(FileExistsError, match="`attempt` must be one that has superseded nothing"):
        supersede_epochs(tmp_path, DEFAULT, from_epoch=0, attempt=1)


def test_folder_without_epochs_has_nothing_to_move(tmp_path: Path) -> None:
    """A run may be resumed before its first epoch has ended."""
    assert supersede_epochs(tmp_path, DEFAULT, from_epoch=0, attempt=1) == ()
