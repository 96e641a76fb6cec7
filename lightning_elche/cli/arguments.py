"""How `elche` reads its command line, and what it says of a wrong one."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

__all__ = ["Parser", "parse_path", "parse_picture"]


PICTURES = (".png", ".svg", ".pdf")


class Parser(argparse.ArgumentParser):
    """A parser whose errors come from the verb that was meant, and say where to read on."""

    def error(self, message: str) -> NoReturn:
        """End the process with exit code 2."""
        super().error(f"{message}\nSee `{self.prog} --help`.")

    def parse_known_args(  # type: ignore[override]  # overloads of the same
        self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None
    ) -> tuple[Any, list[str]]:
        """Parse, and refuse what is unknown here; the caller would name the wrong verb."""
        options, unknown = super().parse_known_args(args, namespace)
        if unknown:
            self.error(f"unrecognized arguments: {' '.join(unknown)}")
        return options, unknown


def parse_path(text: str) -> str:
    """Parse a path; an empty one is often a variable of the shell that is not set."""
    if not text or "\0" in text:
        raise argparse.ArgumentTypeError(f"must be a path, got {text!r}")
    return text


def parse_picture(text: str) -> Path:
    """Parse the name of a picture, whose ending says what kind it is."""
    picture = Path(parse_path(text))
    if picture.suffix.lower() not in PICTURES:
        raise argparse.ArgumentTypeError(f"must end in one of {', '.join(PICTURES)}, got {text!r}")
    return picture
