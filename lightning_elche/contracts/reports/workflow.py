"""Texts inside workflow commands of GitHub Actions."""

from __future__ import annotations

from lightning_elche.contracts.reports.printable import printable

__all__ = ["escape_message", "escape_property"]


def escape_message(text: str) -> str:
    """Return a text as the message of a command."""
    escaped = text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")
    return printable(escaped)


def escape_property(text: str) -> str:
    """Return a text as the value of a property of a command."""
    return escape_message(text).replace(":", "%3A").replace(",", "%2C")
