"""Tests of the small GPT."""

from __future__ import annotations

import pytest
import torch
from char_gpt import CharGPT, pace


def test_a_prediction_does_not_see_what_follows() -> None:
    """Changing the end of a text leaves the predictions before it as they were."""
    torch.manual_seed(0)
    model = CharGPT(width=16, depth=2, heads=2, context=8)
    text = torch.randint(128, (1, 8))
    changed = text.clone()
    changed[:, 5:] = 0
    torch.testing.assert_close(model(text)[:, :5], model(changed)[:, :5], rtol=0, atol=1e-6)


def test_it_predicts_one_of_all_characters() -> None:
    """The output has a score for each character of the vocabulary."""
    assert CharGPT(width=16, depth=1, heads=2)(torch.zeros(3, 5).long()).shape == (3, 5, 128)


def test_the_default_model_is_small() -> None:
    """It trains in a few minutes on a CPU."""
    assert sum(parameter.numel() for parameter in CharGPT().parameters()) < 500_000


@pytest.mark.parametrize(
    ("step", "expected"), [(0, 1 / 30), (29, 0.998), (500, 0.55), (1000, 0.1), (2000, 0.1)]
)
def test_the_learning_rate_rises_and_falls_to_a_tenth(step: int, expected: float) -> None:
    """A warm-up of 3 % and a cosine; beyond the end it stays low."""
    assert pace(step, 1000) == pytest.approx(expected, abs=1e-3)
