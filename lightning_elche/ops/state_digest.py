"""A digest of optimizer states: of their values, not of how a file stores them."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

__all__ = ["ALGORITHM", "optimizer_state_digest", "recompute_optimizer_state_sha"]

ALGORITHM = "elche-state-v1"
END = b"\xff"


def optimizer_state_digest(states: object) -> tuple[str, int]:
    """Return the SHA-256 of optimizer states, and the size of their tensors in bytes.

    Hashed are the name of the algorithm and NUL, then depth first each leaf: path, type, value,
    each followed by 0xFF. Keys are sorted, integers first and by value; a tensor is its type,
    shape, size as 8 bytes and contents, little-endian. Cost: linear in the size of the states.

    Args:
        states: What a checkpoint of Lightning holds as `optimizer_states`.

    Raises:
        TypeError: If a leaf is neither a tensor nor a plain value.
    """
    digest = hashlib.sha256(ALGORITHM.encode() + b"\0")
    size = 0
    for path, leaf in _leaves(states, ()):
        kind, payload = _encoded(leaf, path)
        for part in ("/".join(path).encode(), kind, payload):
            digest.update(part)
            digest.update(END)
        size += leaf.nbytes if isinstance(leaf, torch.Tensor) else 0
    return digest.hexdigest(), size


def recompute_optimizer_state_sha(checkpoint: Path, algorithm: str) -> str | None:
    """Return the digest of the optimizer states in a checkpoint file.

    Args:
        checkpoint: Written by `Trainer.save_checkpoint`.
        algorithm: The one that was used when it was written.

    Returns:
        The digest; `None` if `algorithm` is unknown here, or the file cannot be read safely.
    """
    if algorithm != ALGORITHM:
        return None
    try:
        loaded = torch.load(checkpoint, map_location="cpu", weights_only=True)
        return optimizer_state_digest(loaded["optimizer_states"])[0]
    except Exception:  # a damaged pickle raises nearly anything, and all of it means the same
        return None


def _leaves(node: Any, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:  # noqa: ANN401
    if isinstance(node, dict):
        for key in sorted(node, key=_order):
            yield from _leaves(node[key], (*path, str(key)))
    elif isinstance(node, (list, tuple)):
        for index, item in enumerate(node):
            yield from _leaves(item, (*path, str(index)))
    else:
        yield path, node


def _order(key: object) -> tuple[bool, int, str]:
    return (False, key, "") if isinstance(key, int) else (True, 0, str(key))


def _encoded(leaf: object, path: tuple[str, ...]) -> tuple[bytes, bytes]:
    """Return type and value of a leaf as bytes."""
    if isinstance(leaf, torch.Tensor):
        return b"t", _tensor_bytes(leaf)
    if leaf is None:
        return b"n", b""
    if isinstance(leaf, bool):
        return b"b", b"1" if leaf else b"0"
    if isinstance(leaf, int):
        return b"i", str(leaf).encode()
    if isinstance(leaf, float):
        return b"f", struct.pack("<d", leaf)
    if isinstance(leaf, str):
        return b"s", leaf.encode()
    raise TypeError(
        f"Optimizer states must consist of tensors, numbers, texts and `None`, got {type(leaf)} at "
        f"{'/'.join(path)}."
    )


def _tensor_bytes(tensor: torch.Tensor) -> bytes:
    dtype = str(tensor.dtype).removeprefix("torch.").encode()
    shape = ",".join(str(length) for length in tensor.shape).encode()
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    contents = flat.view(torch.uint8).numpy().tobytes() if flat.numel() else b""
    return END.join((dtype, shape, struct.pack("<Q", len(contents)) + contents))
