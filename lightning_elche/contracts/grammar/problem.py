"""A finding of the grammar, before its place in the file is known."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["Data", "GrammarProblem", "Steps"]

Steps = tuple[str | int, ...]
Data = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class GrammarProblem:
    """Something to say of a contract.

    Attributes:
        rule: Its rule.
        message: What it is.
        steps: Keys and indices that lead to it.
        is_key: Whether it is the last key instead of its value.
    """

    rule: str
    message: str
    steps: Steps = ()
    is_key: bool = False
