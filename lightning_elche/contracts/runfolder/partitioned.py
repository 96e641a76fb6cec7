"""A checkpoint of `PartitionCheckpoint` as evidence: its digests, made again from its files.

Formulas are written out here a second time on purpose: who judges a checkpoint shares no code with
who wrote it, and needs neither torch nor numpy.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from lightning_elche.contracts.runfolder.checkpoint_format import (
    FORMAT,
    MANIFEST,
    MAX_MANIFEST_BYTES,
    TREE,
    optimizer_digest,
)
from lightning_elche.contracts.runfolder.jsonfile import parse_object
from lightning_elche.exceptions import ElCheError

__all__ = ["FILE_SHA256", "CheckpointFault", "PartitionedCheckpoint", "read_partitioned"]

FILE_SHA256 = "file-sha256"  # the algorithm that metadata name
BLOCK_BYTES = 1 << 20


class CheckpointFault(ElCheError):
    """A checkpoint is not what its manifest says.

    Attributes:
        path: The file, relative to the folder of the run.
        is_unknown: Whether it has another format, so that nothing can be said of it.
    """

    def __init__(self, path: PurePosixPath, message: str, *, is_unknown: bool = False) -> None:
        super().__init__(message)
        self.path = path
        self.is_unknown = is_unknown


@dataclass(frozen=True, kw_only=True)
class PartitionedCheckpoint:
    """What the files of a checkpoint give.

    Attributes:
        label: Of the checkpoint.
        optimizer_state_sha: Digest of the optimizer states.
        content_sha256: Digest of all that a resumed run depends on.
        bytes: Length of all files but the manifest.
    """

    label: object
    optimizer_state_sha: str
    content_sha256: str
    bytes: int


def read_partitioned(run_dir: Path, folder: PurePosixPath) -> PartitionedCheckpoint:
    """Read all files of a checkpoint, in constant memory.

    Args:
        run_dir: Folder of the run.
        folder: That of the checkpoint, relative to it.

    Raises:
        CheckpointFault: If a file is not as the manifest says.
        OSError: If a file cannot be read.
    """
    manifest = _read_manifest(run_dir, folder)
    try:
        return _checked(run_dir, folder, manifest)
    except (AttributeError, KeyError, TypeError, ValueError) as err:
        raise CheckpointFault(folder / MANIFEST, "is no manifest of a checkpoint") from err


def _read_manifest(run_dir: Path, folder: PurePosixPath) -> Mapping[str, Any]:
    path = _regular(run_dir, folder / MANIFEST)
    if path.stat().st_size > MAX_MANIFEST_BYTES:
        raise CheckpointFault(folder / MANIFEST, f"has more than {MAX_MANIFEST_BYTES} bytes")
    content = path.read_bytes()
    try:
        manifest = parse_object(content)
        told = manifest.pop("digest", None)
        is_right = told == hashlib.sha256(_canonical(manifest)).hexdigest()
        is_exact = content == _canonical({**manifest, "digest": told})
    except ValueError as err:
        raise CheckpointFault(folder / MANIFEST, str(err)) from err
    if not is_right or not is_exact:
        raise CheckpointFault(folder / MANIFEST, "its digest is another one")
    if manifest.get("format") != FORMAT:
        message = f"has format {manifest.get('format')!r}, this release reads {FORMAT!r}"
        raise CheckpointFault(folder / MANIFEST, message, is_unknown=True)
    return manifest


def _checked(
    run_dir: Path, folder: PurePosixPath, manifest: Mapping[str, Any]
) -> PartitionedCheckpoint:
    files, groups, label = manifest["files"], manifest["groups"], manifest["label"]
    name = f"step-{manifest['step']:08d}" + (f"-{label}" if label else "")
    if folder.name != name:
        raise CheckpointFault(folder / MANIFEST, f"is that of {name}")
    _check_names(run_dir, folder, files)
    digests = {}
    for group, told in groups.items():
        digests[group] = _read_files(run_dir, folder, told["files"], files)
        if digests[group] != told["sha256"]:
            raise CheckpointFault(folder / MANIFEST, f"tells another digest of {group}")
    for alone in sorted(
        files.keys() - {file for told in groups.values() for file in told["files"]}
    ):
        _read_files(run_dir, folder, [alone], files)
    tree = files[TREE]["sha256"]
    content = {"groups": digests, "tree": tree}
    content |= {name: manifest[name] for name in ("step", "sync_index")}
    return PartitionedCheckpoint(
        label=label,
        optimizer_state_sha=optimizer_digest(digests) or tree,  # plain SGD is wholly in there
        content_sha256=hashlib.sha256(_canonical(content)).hexdigest(),
        bytes=sum(told["bytes"] for told in files.values()),
    )


def _check_names(run_dir: Path, folder: PurePosixPath, files: Mapping[str, Any]) -> None:
    found = {path.name for path in (run_dir / folder).iterdir()}
    for name in sorted(found ^ {MANIFEST, *files}):
        what = "is no file of this checkpoint" if name in found else "is missing"
        raise CheckpointFault(folder / name, what)


def _read_files(
    run_dir: Path, folder: PurePosixPath, names: Sequence[str], files: Mapping[str, Any]
) -> str:
    """Check files against what is told of each, and return the digest of all in turn."""
    whole = hashlib.sha256()
    for name in names:
        path, own, told = _regular(run_dir, folder / name), hashlib.sha256(), files[name]
        size = path.stat().st_size
        if size != told["bytes"]:
            raise CheckpointFault(folder / name, f"has {size} bytes, not {told['bytes']}")
        with path.open("rb") as file:
            while block := file.read(BLOCK_BYTES):
                own.update(block)
                whole.update(block)
        if own.hexdigest() != told["sha256"]:
            raise CheckpointFault(folder / name, f"its digest is not {told['sha256']}")
    return whole.hexdigest()


def _regular(run_dir: Path, file: PurePosixPath) -> Path:
    path = run_dir / file
    if path.is_symlink() or not path.is_file():
        raise CheckpointFault(file, "is no regular file" if path.exists() else "is missing")
    return path


def _canonical(value: object) -> bytes:
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return text.encode()
