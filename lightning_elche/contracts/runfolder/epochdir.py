"""The epochs in the folder of a run: their metadata and checkpoints, by the number in the name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from lightning_elche.contracts.model import Contract
from lightning_elche.contracts.records import EpochRecord
from lightning_elche.contracts.runfolder.epochfiles import EpochFile, find_epoch_files
from lightning_elche.contracts.runfolder.epochmeta import EpochMetadata, read_metadata
from lightning_elche.contracts.runfolder.rundir import lies_within
from lightning_elche.contracts.template import PathTemplate
from lightning_elche.contracts.verdicts import Location

__all__ = ["EpochFolder", "Problem", "read_epochs"]


@dataclass(frozen=True, kw_only=True)
class Problem:
    """Something that is wrong with a file of an epoch.

    Attributes:
        message: What.
        at: Where.
    """

    message: str
    at: Location


@dataclass(frozen=True, kw_only=True)
class EpochFolder:
    """What there is of the epochs.

    Attributes:
        run_dir: The folder of the run.
        metadata: What the metadata files of this run say, by epoch.
        metadata_paths: Where they lie, relative to the folder of the run.
        checkpoints: The checkpoints, by epoch.
        checkpoint_paths: Where they lie, relative to the folder of the run.
        problems: What is wrong with these files.
    """

    run_dir: Path
    metadata: Mapping[int, EpochMetadata] = field(default_factory=dict)
    metadata_paths: Mapping[int, str] = field(default_factory=dict)
    checkpoints: Mapping[int, Path] = field(default_factory=dict)
    checkpoint_paths: Mapping[int, str] = field(default_factory=dict)
    problems: tuple[Problem, ...] = ()

    @property
    def records(self) -> tuple[EpochRecord, ...]:
        """What can be judged, in the order of the epochs."""
        everything = (self.metadata[epoch].record for epoch in sorted(self.metadata))
        return tuple(one for one in everything if one is not None)


class _Search:
    """Looks for the files of epochs, and collects what is wrong with them."""

    def __init__(self, run_dir: Path, before_epoch: int | None) -> None:
        self.run_dir = run_dir
        self.problems: list[Problem] = []
        self._before_epoch = before_epoch

    def files(self, template: PathTemplate | None) -> Iterator[EpochFile]:
        """Yield the usable files of a template, one per epoch."""
        if template is None:
            return
        for file in find_epoch_files(self.run_dir, template):
            if self._before_epoch is not None and file.epoch >= self._before_epoch:
                continue
            problem = self._problem(file, template)
            if problem is None:
                yield file
            else:
                self.note(problem, file.path)

    def note(self, message: str, path: Path, pointer: str | None = None) -> None:
        at = Location(path=self.relative(path), pointer=pointer)
        self.problems.append(Problem(message=message, at=at))

    def relative(self, path: Path) -> str:
        return path.relative_to(self.run_dir).as_posix()

    def _problem(self, file: EpochFile, template: PathTemplate) -> str | None:
        if not lies_within(file.path, self.run_dir):
            return "is a link that leads out of the folder of the run"
        if not file.is_canonical:
            return f"must be called {template.relative(file.epoch)}"
        return None if file.path.is_file() else "is no file"


def read_epochs(
    run_dir: Path, contract: Contract, *, run_id: str | None, before_epoch: int | None
) -> EpochFolder:
    """Read the metadata of all epochs, and look for their checkpoints.

    Args:
        run_dir: Folder of the run.
        contract: Says where the files lie, and what they must tell.
        run_id: Of the run: metadata of another one are no metadata of it.
        before_epoch: Later epochs, this one included, are not looked at.
    """
    search = _Search(run_dir, before_epoch)
    checkpoints = {one.epoch: one.path for one in search.files(contract.checkpoint_template)}
    metadata, paths = {}, {}
    for file in search.files(contract.metadata_template):
        read = _read(search, file, contract)
        if read is not None and _is_of_run(search, read, file.path, run_id):
            metadata[file.epoch] = read
            paths[file.epoch] = search.relative(file.path)
    return EpochFolder(
        run_dir=run_dir,
        metadata=metadata,
        metadata_paths=paths,
        checkpoints=checkpoints,
        checkpoint_paths={epoch: search.relative(path) for epoch, path in checkpoints.items()},
        problems=tuple(search.problems),
    )


def _read(search: _Search, file: EpochFile, contract: Contract) -> EpochMetadata | None:
    try:
        read = read_metadata(file.path, epoch=file.epoch, required=contract.metadata_fields)
    except (ValueError, OSError) as err:
        search.note(str(err), file.path)
        return None
    for pointer, message in read.problems:
        search.note(message, file.path, pointer or None)
    if "epoch" in contract.metadata_fields and read.told_epoch != file.epoch:
        message = f"epoch is {read.told_epoch!r}, by the name of the file it is {file.epoch}"
        search.note(message, file.path, "/epoch")
    return read


def _is_of_run(search: _Search, read: EpochMetadata, path: Path, run_id: str | None) -> bool:
    if run_id is None or read.run_id is None or read.run_id == run_id:
        return True
    search.note(f"is of run {read.run_id!r}, not of {run_id!r}", path, "/run_id")
    return False
