"""The names of folders in a root of checkpoints."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass

from lightning_elche.partition.fs import Owner

__all__ = [
    "CheckpointName",
    "OwnedName",
    "check_label",
    "checkpoint_name",
    "owned_name",
    "parse_checkpoint_name",
    "parse_owned_name",
]

LABEL = "[a-z0-9][a-z0-9-]{0,31}"
CHECKPOINT = re.compile(rf"step-([0-9]{{8,}})(?:-({LABEL}))?")
OWNED = re.compile(r"\.(tmp|trash)-[0-9]{8,}-([0-9a-f]{8})-([0-9a-f]{8})-([0-9]+)-[0-9a-f]{8}")


@dataclass(frozen=True)
class CheckpointName:
    """What the name of a checkpoint says."""

    step: int
    label: str | None


@dataclass(frozen=True)
class OwnedName:
    """What the name of a temporary folder says of its owner; `kind` is "tmp" or "trash"."""

    kind: str
    host: str
    boot: str
    pid: int

    def is_of_host(self, owner: Owner) -> bool:
        """Return whether `owner` runs on the same machine."""
        return self.host == _short(owner.host)

    def is_of_boot(self, owner: Owner) -> bool:
        """Return whether the machine of `owner` was not started anew since."""
        return self.boot == _short(owner.boot_id)


def check_label(label: str | None) -> None:
    """Raise a `ValueError` unless a checkpoint can have this label."""
    if label is not None and not re.fullmatch(LABEL, label):
        raise ValueError(
            "`label` must have 1 to 32 lower-case letters, digits and hyphens and not begin with "
            f"a hyphen, got {label!r}."
        )


def checkpoint_name(step: int, label: str | None = None) -> str:
    """Return the name of a checkpoint.

    Example:
        >>> checkpoint_name(42, "stop")
        'step-00000042-stop'
    """
    return f"step-{step:08d}" + (f"-{label}" if label else "")


def parse_checkpoint_name(name: str) -> CheckpointName | None:
    """Return what a name says, `None` if it is not that of a checkpoint."""
    match = CHECKPOINT.fullmatch(name)
    if match is None:
        return None
    parsed = CheckpointName(step=int(match[1]), label=match[2])
    return parsed if checkpoint_name(parsed.step, parsed.label) == name else None


def owned_name(kind: str, step: int, owner: Owner, uuid: str) -> str:
    """Return the name of a temporary folder, which tells when it may be removed.

    Args:
        kind: "tmp" for a checkpoint that is being written, "trash" for one being deleted.
        step: Of the checkpoint.
        owner: The process.
        uuid: Hexadecimal digits that nobody else has.
    """
    parts = _short(owner.host), _short(owner.boot_id), str(owner.pid), uuid[:8]
    return f".{kind}-{step:08d}-{'-'.join(parts)}"


def parse_owned_name(name: str) -> OwnedName | None:
    """Return what a name says, `None` if it is not that of a temporary folder of ours."""
    match = OWNED.fullmatch(name)
    return None if match is None else OwnedName(match[1], match[2], match[3], int(match[4]))


def _short(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:8]
