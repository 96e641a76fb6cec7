"""Flat buffers, on the device of the tensors and in host memory."""

from __future__ import annotations

import pytest
import torch

from lightning_elche.ops.flat import FlatAverage
from lightning_elche.ops.grouping import group_by_wire_type
from lightning_elche.ops.staged import StagedFlatAverage

needs_cuda = [
    pytest.mark.cuda,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
# `torch.cpu` has streams and events that do nothing, so that the same lines run without a GPU.
everywhere = pytest.mark.parametrize(
    ("kind", "device"),
    [
        (FlatAverage, "cpu"),
        (StagedFlatAverage, "cpu"),
        pytest.param(FlatAverage, "cuda", marks=needs_cuda),
        pytest.param(StagedFlatAverage, "cuda", marks=needs_cuda),
    ],
)


@everywhere
def test_snapshot_is_kept_beside_the_average(kind: type[FlatAverage], device: str) -> None:
    """Scaling and summing leave the snapshot as it was loaded, whatever the tensor has become."""
    tensor = torch.tensor([3.0, 5.0], device=device)
    flat = kind([tensor])
    flat.load()
    tensor += 10.0
    flat.scale(0.5)
    flat.average += 1.0
    assert flat.own.tolist() == [3.0, 5.0]
    assert flat.average.tolist() == [2.5, 3.5]


@everywhere
def test_scale_of_zero_gives_zeros_even_from_nan(kind: type[FlatAverage], device: str) -> None:
    """Zero times NaN would be NaN."""
    parameter = torch.tensor([torch.nan], device=device)
    flat = kind([parameter], [torch.tensor([torch.inf], device=device)])
    flat.load()
    flat.scale(0.0)
    assert flat.average.tolist() == [0.0, 0.0]


@everywhere
def test_average_takes_the_place_of_the_tensors(kind: type[FlatAverage], device: str) -> None:
    """In the shapes and types of the tensors, parameters and buffers alike."""
    weight = torch.tensor([[1.0, 2.0], [3.0, 4.0]], dtype=torch.bfloat16, device=device)
    buffer = torch.tensor(8.0, device=device)
    flat = kind([weight], [buffer])
    flat.load()
    flat.scale(0.5, 2.0)
    flat.store()
    assert weight.dtype == torch.bfloat16
    assert weight.tolist() == [[0.5, 1.0], [1.5, 2.0]]
    assert buffer.item() == 16.0


@everywhere
def test_steps_made_meanwhile_are_kept(kind: type[FlatAverage], device: str) -> None:
    """The tensor moves by `average - snapshot`, and the next snapshot starts from there."""
    tensor = torch.tensor([3.0, 5.0], device=device)
    flat = kind([tensor])
    for expected in ([2.5, 3.5], [2.25, 2.75]):
        flat.load()
        tensor += 1.0
        flat.scale(0.5)
        flat.add_difference()
        assert tensor.tolist() == expected


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_copies_take_their_turn_among_the_kernels_of_the_training() -> None:
    """A snapshot holds what was there when it was asked for, though the host runs far ahead."""
    tensor = torch.zeros(1 << 22, device="cuda")
    flat = StagedFlatAverage([tensor])
    assert flat.average.is_pinned()
    for step in range(20):
        torch.cuda._sleep(5_000_000)  # the tensor is still to be written when `load` returns
        tensor.fill_(float(step))
        flat.load()
        tensor.fill_(-1.0)
        flat.scale(2.0)
        flat.store()
        tensor += 1.0
        assert flat.own.unique().tolist() == [step]
        assert tensor.unique().tolist() == [2.0 * step + 1.0]


def test_groups_are_in_the_order_of_their_types() -> None:
    """Every rank exchanges them in the same order, and half precision as float32."""
    params = [torch.zeros(1, dtype=torch.float64), torch.zeros(2), torch.zeros(3, dtype=torch.half)]
    groups = group_by_wire_type(params, [torch.zeros(4)], on_host=True)
    assert [(group.own.dtype, len(group.own)) for group in groups] == [
        (torch.float32, 9),
        (torch.float64, 1),
    ]


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_tensors_on_a_gpu_get_host_buffers_where_asked() -> None:
    """The backend "cpu" exchanges in host memory."""
    param = torch.zeros(2, device="cuda")
    assert group_by_wire_type([param])[0].own.is_cuda
    assert not group_by_wire_type([param], on_host=True)[0].own.is_cuda
