"""Where the registry is that runs share."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

__all__ = ["RegistryConfig", "check_folder", "default_folder", "make_folder"]

SCHEMES = ("http://", "https://")


@dataclass(frozen=True, kw_only=True)
class RegistryConfig:
    """Where the registry is that runs share.

    Args:
        folder: Of all runs of this user on this machine. `None`: `$ELCHE_COORD_DIR`, else `elche`
            in `$XDG_STATE_HOME` or in `~/.local/state`, which outlive a restart.
        url: Of a registry that serves several machines; it is used instead of the one in `folder`.
            `None`: `$ELCHE_COORD_URL`.
        token: What that wants to see from those who change it. A secret: it has no place in a
            file. `None`: `$ELCHE_TOKEN`.
    """

    folder: str | None = None
    url: str | None = None
    token: str | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        """Validate."""
        if self.folder == "":
            raise ValueError('`folder` must be a path or null, got "".')
        if self.url is not None and not self.url.startswith(SCHEMES):
            raise ValueError(
                f'`url` must begin with http:// or https:// or be null, got "{self.url}".'
            )

    def completed(self, environment: Mapping[str, str]) -> RegistryConfig:
        """Return the same with what it leaves out from the environment.

        Args:
            environment: As `os.environ`.
        """
        return replace(
            self,
            folder=self.folder
            or environment.get("ELCHE_COORD_DIR")
            or str(default_folder(environment)),
            url=self.url or environment.get("ELCHE_COORD_URL") or None,
            token=self.token or environment.get("ELCHE_TOKEN") or None,
        )


def default_folder(environment: Mapping[str, str]) -> Path:
    """Return the folder for where nobody has named one.

    It is not in the system's folder for temporary files, which anybody may write to.

    Args:
        environment: As `os.environ`.
    """
    state = environment.get("XDG_STATE_HOME") or ""
    # The specification of this variable has relative paths ignored.
    base = Path(state) if Path(state).is_absolute() else Path.home() / ".local" / "state"
    return base / "elche"


def check_folder(folder: Path) -> None:
    """Check that the folder of all runs is a folder, or can become one.

    Raises:
        ValueError: If it is a file, or would lie in one.
    """
    found = next((path for path in (folder, *folder.parents) if os.path.lexists(path)), folder)
    if os.path.lexists(found) and not found.is_dir():
        raise ValueError(
            f"`ELCHE_COORD_DIR` (`folder` of the registry) must be a directory, got {folder}: "
            f"{found} is a file. Name a directory; it is made if it is not there."
        )


def make_folder(folder: Path) -> None:
    """Make the folder of all runs, for this user only.

    Raises:
        ValueError: If it is a file, or would lie in one.
    """
    check_folder(folder)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
