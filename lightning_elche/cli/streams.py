"""Where `elche` writes: results to standard output, everything else to standard error."""

from __future__ import annotations

import contextlib
import io
import os
import sys

__all__ = ["discard_unwritable", "is_colored", "told", "write_result"]

MEANINGS = {
    FileNotFoundError: "does not exist",
    NotADirectoryError: "is a file, but must be a folder",
    IsADirectoryError: "is a folder, but must be a file",
    PermissionError: "is not permitted to this user",
}


def write_result(text: str) -> None:
    """Write to standard output, which may be closed, at once.

    Raises:
        OSError: If it cannot be written; `BrokenPipeError` if nobody reads it any more.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):  # a terminal that is not in UTF-8
        sys.stdout.reconfigure(errors="backslashreplace")
    print(text, flush=sys.stdout is not None)


def is_colored() -> bool:
    """Return whether standard output shows colours."""
    is_terminal = sys.stdout is not None and sys.stdout.isatty()
    return is_terminal and not os.environ.get("NO_COLOR")


def discard_unwritable() -> None:
    """Send to nowhere what standard output holds and cannot write; Python would complain."""
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except OSError:
        with contextlib.suppress(OSError):  # no file
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, sys.stdout.fileno())
            os.close(nowhere)


def told(err: BaseException) -> str:
    """Return what went wrong; of an error of the file system, the path and what is the matter."""
    if not isinstance(err, OSError) or err.filename is None or err.strerror is None:
        return str(err)
    return f"{err.filename} {MEANINGS.get(type(err), f'is not usable: {err.strerror}')}."
