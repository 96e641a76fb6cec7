"""The order in which tasks meet depends on seed, step and batch, and on nothing else."""

from __future__ import annotations

import random
import struct

import numpy as np
import pytest
import torch

from lightning_elche.ops.order import step_generator


def orders(*arguments: int) -> list[list[int]]:
    generator = step_generator(*arguments)
    return [torch.randperm(5, generator=generator).tolist() for _ in range(3)]


def test_order_is_the_same_on_every_machine_and_at_every_time() -> None:
    """These numbers are part of the contract: a run that is resumed elsewhere needs them."""
    assert step_generator(3, 17, 2).initial_seed() == 3645275600109178305
    assert orders(3, 17, 2) == [[0, 3, 2, 4, 1], [0, 2, 3, 1, 4], [1, 3, 4, 2, 0]]


def test_seed_step_and_batch_draw_orders_of_their_own() -> None:
    """A seed and a step that are exchanged, or add up to the same, do not repeat each other."""
    seeds = [step_generator(*numbers).initial_seed() for numbers in ((0, 1), (1, 0), (0, 0, 1))]
    assert len({*seeds, step_generator(0, 0).initial_seed()}) == 4


def test_no_global_generator_is_read_or_moved() -> None:
    """The user's own random numbers stay as they are."""
    before = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()
    orders(0, 0)
    after = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()
    assert before == after


def test_number_beyond_64_bits_is_refused() -> None:
    """Rather than cut."""
    with pytest.raises(struct.error):
        step_generator(2**63, 0)
