"""Durations are said as a person would."""

from __future__ import annotations

import pytest

from lightning_elche.timeline.duration import duration_text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0, "0 s"),
        (0.0123, "0.0123 s"),
        (2.75, "2.8 s"),
        (119.94, "119.9 s"),
        (750.4, "12 min 30 s"),
        (7199.9, "2 h 0 min"),
        (87_412.8, "24 h 16 min"),
    ],
)
def test_long_durations_are_in_hours(seconds: float, text: str) -> None:
    """And short ones in seconds."""
    assert duration_text(seconds) == text
