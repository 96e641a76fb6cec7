"""Flat buffers."""

from __future__ import annotations

import torch

from lightning_elche.ops.flat import FlatAverage


def test_snapshot_is_kept_beside_the_average() -> None:
    """Scaling and summing leave the snapshot as it was loaded, whatever the tensor has become."""
    tensor = torch.tensor([3.0, 5.0])
    flat = FlatAverage([tensor])
    flat.load()
    tensor += 10.0
    flat.scale(0.5)
    flat.average += 1.0
    assert flat.own.tolist() == [3.0, 5.0]
    assert flat.average.tolist() == [2.5, 3.5]


def test_scale_of_zero_gives_zeros_even_from_nan() -> None:
    """Zero times NaN would be NaN."""
    flat = FlatAverage([torch.tensor([torch.nan])], [torch.tensor([torch.inf])])
    flat.load()
    flat.scale(0.0)
    assert flat.average.tolist() == [0.0, 0.0]
