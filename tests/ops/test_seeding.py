"""Seeds that follow from a base and a place."""

from __future__ import annotations

import random

import numpy as np
import torch

from lightning_elche.ops.seeding import mix, seed_all, seed_of_batch


def test_mix_has_known_answers() -> None:
    """It is the finaliser of splitmix64, whose stream from 0 begins so."""
    assert [hex(mix(n * 0x9E3779B97F4A7C15)) for n in (1, 2)] == [
        "0xe220a8397b1dcdaf",
        "0x6e789e6aa1b965f4",
    ]


def test_each_batch_of_each_rank_has_a_seed_of_its_own() -> None:
    """Also where rank and number could be taken for each other."""
    seeds = {seed_of_batch(7, rank=rank, number=n) for rank in range(20) for n in range(500)}
    assert len(seeds) == 10_000


def test_all_generators_are_seeded() -> None:
    """The same seed draws the same numbers again."""
    drawn = []
    for _ in range(2):
        seed_all(2**64 - 1)
        drawn.append((random.random(), float(np.random.rand()), float(torch.rand(()))))
    assert drawn[0] == drawn[1]
