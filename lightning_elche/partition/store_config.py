"""Options of a store of checkpoints."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args, get_type_hints

from lightning_elche.partition.errors import InvalidConfig

__all__ = ["StoreConfig"]


@dataclass(frozen=True, kw_only=True)
class StoreConfig:
    """How checkpoints are written and which ones are kept.

    Args:
        max_retained: Number of newest checkpoints to keep. Labelled ones and those with NaN do not
            count and stay.
        monitor: Name of a metric by which the best ones are kept, too.
        mode: Whether less of it is better or more.
        keep_best: How many of the best, if `monitor` is set.
        async_write: Whether training goes on while a checkpoint is written.
        durability: "fsync" survives a power cut, "flush" only the end of the process.
        read_back: Whether each checkpoint is read and compared once it is written.
        on_write_error: Whether training stops with an error if one cannot be written.
        on_rewind: Where an older checkpoint is resumed from, what happens to newer ones: "archive"
            moves them to `archive/`, "raise" refuses.
        layout: One file for each group ("single") or for each part of one ("sharded"); "auto" is
            "sharded" if parts come from several machines.
        dir_mode: Permissions of new folders.
        max_quarantined: Number of newest folders to keep in `quarantine/`.
    """

    max_retained: int = 4
    monitor: str | None = None
    mode: Literal["min", "max"] = "min"
    keep_best: int = 1
    async_write: bool = True
    durability: Literal["fsync", "flush"] = "fsync"
    read_back: bool = False
    on_write_error: Literal["raise", "warn"] = "raise"
    on_rewind: Literal["archive", "raise"] = "archive"
    layout: Literal["auto", "single", "sharded"] = "auto"
    dir_mode: int = 0o700
    max_quarantined: int = 2

    def __post_init__(self) -> None:
        """Validate."""
        for name, least in (("max_retained", 1), ("keep_best", 0), ("max_quarantined", 1)):
            value = getattr(self, name)
            if value < least:
                raise InvalidConfig(f"`{name}` must be >= {least}, got {value}.")
        if self.dir_mode & 0o700 != 0o700:
            raise InvalidConfig(f"`dir_mode` must let its owner in, got {self.dir_mode:#o}.")
        hints = get_type_hints(type(self))
        for name in ("mode", "durability", "on_write_error", "on_rewind", "layout"):
            allowed, value = get_args(hints[name]), getattr(self, name)
            if value not in allowed:
                choices = ", ".join(repr(one) for one in allowed)
                raise InvalidConfig(f"`{name}` must be one of {choices}, got {value!r}.")
