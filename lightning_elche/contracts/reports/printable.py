"""Text from files that others wrote, made safe to print on one line."""

from __future__ import annotations

__all__ = ["printable"]


def printable(text: str) -> str:
    r"""Return `text` with all that cannot be seen written as escapes, such as `\x1b`.

    Control characters could move the cursor of a terminal, are not allowed in XML, and lone
    surrogates cannot be encoded.
    """
    if text.isprintable():
        return text
    return "".join(one if one.isprintable() else _escape(one) for one in text)


def _escape(one: str) -> str:
    return one.encode("unicode_escape").decode("ascii")
