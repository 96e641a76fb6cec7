"""Where a run keeps what it tells of itself."""

from __future__ import annotations

from pathlib import Path

import pytest
from lightning.pytorch.loggers import CSVLogger

from lightning_elche.callbacks.run_folder import run_folder
from tests.ranks import make_trainer


def test_folder_lies_in_that_of_the_logger(tmp_path: Path) -> None:
    """It has a version, so that runs do not mix."""
    trainer = make_trainer(1, logger=CSVLogger(tmp_path, version=3))
    assert run_folder(trainer) == tmp_path / "lightning_logs" / "version_3" / "elche"


def test_folder_lies_in_the_root_directory_without_a_logger(tmp_path: Path) -> None:
    """Which is the working directory, unless it is set."""
    assert run_folder(make_trainer(1, default_root_dir=tmp_path)) == tmp_path / "elche"


def test_folder_of_a_trainer_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A second call asks nobody."""
    trainer = make_trainer(1, default_root_dir=tmp_path)
    run_folder(trainer)
    monkeypatch.setattr(type(trainer), "log_dir", property(lambda _: pytest.fail("asked again")))
    assert run_folder(trainer) == tmp_path / "elche"


def test_logs_on_another_machine_leave_the_folder_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Since events are appended to; a warning says so."""
    monkeypatch.chdir(tmp_path)
    trainer = make_trainer(1, default_root_dir="memory://runs")
    with pytest.warns(UserWarning, match="written to 'elche' in the working directory"):
        assert run_folder(trainer) == tmp_path / "elche"
