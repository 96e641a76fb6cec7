"""Path templates, such as `{run_dir}/ckpt/epoch-{epoch:03d}.ckpt`: where files of an epoch lie."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

__all__ = ["PathTemplate"]

RUN_DIR = "{run_dir}/"
# More digits than an epoch can have; `int` would refuse thousands of them.
MOST_DIGITS = 18
EPOCH = re.compile(r"\{epoch(?::0([1-9][0-9]?)d)?\}")
CONTROL = re.compile(r"[\x00-\x1f\x7f]")


@dataclass(frozen=True, kw_only=True)
class PathTemplate:
    """A path with the number of the epoch in it; made by `PathTemplate.parse`.

    Attributes:
        text: The template as given.
        before: The path below the folder of the run up to the number.
        after: The rest.
        width: Least number of digits, 0 for no padding.

    Example:
        >>> template = PathTemplate.parse("{run_dir}/ckpt/epoch-{epoch:03d}.ckpt")
        >>> template.relative(7), template.match("ckpt/epoch-7.ckpt")
        ('ckpt/epoch-007.ckpt', (7, False))
    """

    text: str
    before: str
    after: str
    width: int

    @classmethod
    def parse(cls, text: str, *, requires_run_dir: bool = True) -> PathTemplate:
        """Read a template.

        Args:
            text: A path with forward slashes and exactly one `{epoch}` or `{epoch:0Nd}`.
            requires_run_dir: Whether it must begin with `{run_dir}/`.

        Raises:
            ValueError: If it is none; the message says why.
        """
        has_run_dir = text.startswith(RUN_DIR)
        if requires_run_dir and not has_run_dir:
            raise ValueError(f"`path_template` must begin with '{RUN_DIR}', got {text!r}.")
        below = text.removeprefix(RUN_DIR)
        found = list(EPOCH.finditer(below))
        if len(found) != 1:
            raise ValueError(
                "`path_template` must have exactly one '{epoch}' or '{epoch:0Nd}', "
                f"got {len(found)} in {text!r}."
            )
        before, after = below[: found[0].start()], below[found[0].end() :]
        width = int(found[0][1] or 0)
        problem = _problem(before, after, width)
        if problem is not None:
            raise ValueError(f"`path_template` must not have {problem}, got {text!r}.")
        return cls(text=text, before=before, after=after, width=width)

    @property
    def folder(self) -> str:
        """The folder that has the files of all epochs, relative to that of the run."""
        return self.before.rpartition("/")[0]

    def relative(self, epoch: int) -> str:
        """Return the path for `epoch` below the folder of the run, with forward slashes."""
        return f"{self.before}{epoch:0{self.width}d}{self.after}"

    def format(self, epoch: int, run_dir: Path) -> Path:
        """Return the path for `epoch`."""
        return run_dir / self.relative(epoch)

    def match(self, relative: str) -> tuple[int, bool] | None:
        """Return the epoch of a path below the folder of the run, and whether it is spelt so.

        `None` if the path does not fit the template with any number of digits.
        """
        digits = relative.removeprefix(self.before).removesuffix(self.after)
        if relative != f"{self.before}{digits}{self.after}" or not _is_number(digits):
            return None
        epoch = int(digits)
        return epoch, relative == self.relative(epoch)


def _is_number(digits: str) -> bool:
    return digits.isascii() and digits.isdigit() and len(digits) <= MOST_DIGITS


def _problem(before: str, after: str, width: int) -> str | None:
    """Return what a template must not have but has."""
    if any(brace in before + after for brace in "{}"):
        return "braces besides one '{run_dir}/' in front and one epoch"
    if CONTROL.search(before + after):
        return "control characters"
    if "\\" in before + after or re.match(r"[A-Za-z]:", before):
        return "backslashes or a drive: write forward slashes"
    parts = f"{before}0{after}".split("/")
    if any(part in ("", ".", "..") for part in parts):
        return "empty parts, '.' or '..', nor be absolute"
    return f"more than {MOST_DIGITS} digits" if width > MOST_DIGITS else None
