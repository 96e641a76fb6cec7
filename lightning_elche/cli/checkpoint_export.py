"""`elche checkpoint export`: a verified checkpoint in another format."""

from __future__ import annotations

import argparse
import hashlib
import os
import uuid
from collections.abc import Callable
from pathlib import Path

from lightning_elche.cli.checkpoint_output import say
from lightning_elche.cli.checkpoint_places import checkpoint_at
from lightning_elche.cli.outcome import Line, Outcome
from lightning_elche.contracts.strictjson import dump_strictly
from lightning_elche.partition.errors import Corrupt
from lightning_elche.partition.fs import LocalFs
from lightning_elche.partition.manifest import MANIFEST, TREE, Manifest, encode_manifest
from lightning_elche.partition.publish import remove_tree
from lightning_elche.partition.read_checkpoint import read_checkpoint, verify_checkpoint

__all__ = ["export"]

Write = Callable[[Path], None]

# What a tree that no run has written can lead to, such as a device that torch does not know.
NO_STATE = (ValueError, TypeError, LookupError, AttributeError, ArithmeticError, RuntimeError)


def export(options: argparse.Namespace) -> Outcome:
    """Write a checkpoint that was verified in full in another format.

    Raises:
        CheckpointError: If it is not right; nothing is written then.
        OSError: If a folder cannot be read, or the result not be written.
        ValueError: If there is something in the place of the result.
    """
    path = checkpoint_at(LocalFs(), options.path, options)
    out = _place(options.out, path)
    write = _statement(path) if options.to == "oms" else _state(path, options)
    _publish(out, write)
    data = {"path": str(path), "format": options.to, "out": str(out)}
    return Outcome(lines=(Line(str(out)),), data=data)


def _place(text: str, checkpoint: Path) -> Path:
    out = Path(os.path.abspath(text))
    if os.path.lexists(out):
        raise ValueError(f"`OUT` must be a new name, got {text}, which is there.")
    inside = Path(os.path.realpath(checkpoint))
    if inside in Path(os.path.realpath(out)).parents:
        raise ValueError(f"`OUT` must not be in the checkpoint, got {text}: it would be corrupt.")
    return out


def _publish(out: Path, write: Write) -> None:
    """Write beside the place of the result, and rename once all of it is on the disk."""
    temp = out.with_name(f".{out.name[:100]}.{uuid.uuid4().hex[:8]}.tmp")
    fs = LocalFs()
    try:
        write(temp)
        for file in temp.iterdir() if temp.is_dir() else (temp,):
            _sync(fs, file)
        if os.path.lexists(out):
            raise ValueError(f"`OUT` must be a new name, but {out} was made meanwhile.")
        fs.rename(temp, out)
    except BaseException:
        remove_tree(fs, temp)
        raise
    fs.fsync_folder(out.parent)


def _sync(fs: LocalFs, file: Path) -> None:
    descriptor = fs.open_write(file)
    try:
        fs.fsync(descriptor)
    finally:
        fs.close(descriptor)


def _state(path: Path, options: argparse.Namespace) -> Write:
    # Torch takes seconds to import, and nothing else here needs it.
    from lightning_elche.cli.checkpoint_torch import save_ckpt, save_dcp
    from lightning_elche.ops.kept_states import states_for_rank
    from lightning_elche.ops.tensor_state import join_state

    checkpoint = read_checkpoint(LocalFs(), path)
    try:
        tree, groups = states_for_rank(checkpoint.tree, checkpoint.groups, rank=0, world_size=1)
        state = join_state(tree, groups)
    except NO_STATE as err:
        reason = f"it is not that of a state: {type(err).__name__}: {err}"
        raise Corrupt(str(path), reason, file=TREE) from err
    for name in checkpoint.groups:
        if "@" in name:
            say(f"group {name} is that of one rank; other formats get the mean of all", options)
    return lambda temp: (save_ckpt if options.to == "ckpt" else save_dcp)(state, temp)


def _statement(path: Path) -> Write:
    text = dump_strictly(_node(verify_checkpoint(LocalFs(), path)), indent=2)

    def write(temp: Path) -> None:
        temp.write_bytes(text)

    return write


def _node(manifest: Manifest) -> dict[str, object]:
    """Return what model-signing 1.0 signs: each file, and one digest of all their digests."""
    digests = {name: file.sha256 for name, file in manifest.files.items()}
    digests[MANIFEST] = hashlib.sha256(encode_manifest(manifest)).hexdigest()
    in_order = sorted(digests.items())
    whole = hashlib.sha256(b"".join(bytes.fromhex(digest) for _, digest in in_order))
    return {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{"name": manifest.name, "digest": {"sha256": whole.hexdigest()}}],
        "predicateType": "https://model_signing/signature/v1.0",
        "predicate": {
            "serialization": {
                "method": "files",
                "hash_type": "sha256",
                "allow_symlinks": False,
                "ignore_paths": [],
            },
            "resources": [
                {"name": name, "algorithm": "sha256", "digest": digest} for name, digest in in_order
            ],
        },
    }
