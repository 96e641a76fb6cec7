"""Digests that travel as one float64."""

from __future__ import annotations

import hashlib

__all__ = ["digest_number"]

EXACT_BITS = 52  # of an integer in a float64


def digest_number(text: str) -> int:
    """Return a number that is equal where `text` is, and exact as a float64."""
    digest = hashlib.sha256(text.encode()).digest()
    modulus: int = 2**EXACT_BITS
    return int.from_bytes(digest, "big") % modulus
