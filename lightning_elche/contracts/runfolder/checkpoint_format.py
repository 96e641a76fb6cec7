"""What writing and checking a partitioned checkpoint have to agree on."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping

__all__ = ["FORMAT", "MANIFEST", "MAX_MANIFEST_BYTES", "OPTIMIZER", "TREE", "optimizer_digest"]

FORMAT = "elche-checkpoint-1"
MANIFEST, TREE = "manifest.json", "tree.json"
MAX_MANIFEST_BYTES = 1 << 28
# The group of an optimizer, or of what one rank keeps of it.
OPTIMIZER = re.compile(r"optimizer-(0|[1-9][0-9]*)(?:@r(0|[1-9][0-9]*))?")


def optimizer_digest(groups: Mapping[str, str]) -> str | None:
    """Return the digest of the optimizers' states, `None` if no optimizer has tensors.

    That of one optimizer is what `sha256sum` prints for its file; for several it is the SHA-256 of
    their digests in hexadecimal, joined by line ends.

    Args:
        groups: The digest of the file of each group.
    """
    found = [(OPTIMIZER.fullmatch(name), sha256) for name, sha256 in groups.items()]
    numbered = sorted((int(m[1]), int(m[2] or 0), sha256) for m, sha256 in found if m is not None)
    digests = [sha256 for *_, sha256 in numbered]
    if len(digests) < 2:
        return digests[0] if digests else None
    return hashlib.sha256("\n".join(digests).encode()).hexdigest()
