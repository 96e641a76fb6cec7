"""Text that is safe to print."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightning_elche.contracts.reports.printable import printable


@pytest.mark.parametrize(
    "text", ["", "val_loss 7.1 > 2.0 x 3.5", "Gr\u00f6\u00dfe \u6f22 \U0001f642"]
)
def test_visible_text_stays_as_it_is(text: str) -> None:
    """Letters of all scripts and pictures can be seen."""
    assert printable(text) == text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\nb", "a\\nb"),
        ("\x1b[31mred", "\\x1b[31mred"),
        ("\x00", "\\x00"),
        ("\u202egnp", "\\u202egnp"),
        ("\udc80", "\\udc80"),
        ("\ufffe", "\\ufffe"),
    ],
)
def test_invisible_text_is_escaped(text: str, shown: str) -> None:
    """Control characters, reversals of direction, surrogates and non-characters are."""
    assert printable(text) == shown


@given(st.text(st.characters(exclude_categories=())))
def test_result_can_be_seen_and_encoded(text: str) -> None:
    """Whatever the text was."""
    assert printable(text).isprintable()
    assert printable(text).encode().decode() == printable(text)
