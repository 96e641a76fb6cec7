"""Manifests that say something else than they did."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lightning_elche.partition.manifest import MANIFEST
from lightning_elche.partition.plan import canonical_json


def sealed(node: dict[str, Any]) -> bytes:
    """The file of a manifest, with the digest that belongs to it."""
    rest = {key: item for key, item in node.items() if key != "digest"}
    digest = hashlib.sha256(canonical_json(rest)).hexdigest()
    return canonical_json({**rest, "digest": digest})


def forge(path: Path, change: Callable[[Any], object], *, should_seal: bool = True) -> None:
    """Change the manifest of a checkpoint, as one would who knows the format."""
    node = json.loads((path / MANIFEST).read_bytes())
    change(node)
    (path / MANIFEST).write_bytes(sealed(node) if should_seal else canonical_json(node))
