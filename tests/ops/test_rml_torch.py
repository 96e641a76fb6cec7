"""Row multilinear fingerprints of tensors, on the host and as a device computes them."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import pytest
import torch
from torch import Tensor

from lightning_elche.ops import rml_torch
from lightning_elche.ops.rml_torch import device_lanes, host_lanes, named_lanes
from lightning_elche.ops.tensor_types import code_and_shape
from lightning_elche.partition.errors import UnsupportedState
from lightning_elche.partition.fnv import Lanes
from lightning_elche.partition.rml import tensor_lanes

Take = Callable[[Mapping[str, Tensor]], list[Lanes]]
both = pytest.mark.parametrize("take", [host_lanes, device_lanes])

KNOWN = {
    "model/w": (
        torch.tensor([[1.0, -0.0], [0.5, -2.0]]),
        (0xB1EEFDE6DF8B0C15, 0xF469D41EBA3E7CC0),
    ),
    "model/e": (torch.empty(0), (0x040B1874351B509D, 0xB6959D747C22EBB1)),
    "model/r": (
        (torch.arange(65544) % 251).to(torch.uint8),
        (0xCF3205151776F0D2, 0x824EAA7DEA7E8E37),
    ),
    "model/n": (torch.arange(-10000, 10000), (0xDABFC9699051095D, 0x70845542C68A7CE6)),
}


def awkward_tensors() -> dict[str, Tensor]:
    """Return tensors of all kinds of types, sizes, strides and places in memory."""
    draw = torch.Generator().manual_seed(1)
    arena = torch.randn(300_001, generator=draw)
    image = torch.randn(9, 7, generator=draw)
    tensors = {
        "scalar": arena[0],
        "at an odd place": arena[1:30_004],
        "transposed": image.T,
        "every other": arena[::2],
        "several pieces": arena[:300_000].view(100, 3000),
        "a whole row": torch.randn(8192, generator=draw, dtype=torch.float64),
        "odd halves": torch.randn(33, generator=draw).half(),
        "odd bfloats": torch.randn(40_003, generator=draw).bfloat16(),
        "bools": arena[:77] > 0,
        "complex": torch.complex(image, image + 1),
        "complex128": torch.complex(image.double(), image.double()),
        "float8": image.to(torch.float8_e4m3fn),
        "uint16": torch.arange(11, dtype=torch.int32).to(torch.uint16),
        "negative": torch.full((5,), -1, dtype=torch.int8),
        "of no rows": torch.empty(0, 4),
    }
    return {f"model/{name}": tensor for name, tensor in tensors.items()}


def numpy_lanes(name: str, tensor: Tensor) -> Lanes:
    data = tensor.contiguous().reshape(-1).view(torch.uint8).numpy()
    code, shape, _ = code_and_shape(tensor)
    return tensor_lanes(name, code, shape, data)


@both
def test_known_answers_come_out(take: Take) -> None:
    """Lanes are those of the definition, all tensors in one pass."""
    tensors = {name: tensor for name, (tensor, _) in KNOWN.items()}
    assert take(tensors) == [lanes for _, lanes in KNOWN.values()]


@both
def test_lanes_equal_those_of_numpy_for_all_kinds_of_tensors(
    take: Take, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Type, size, stride and alignment do not matter, nor how a device cuts a large tensor."""
    monkeypatch.setattr(rml_torch, "ROWS_PER_PIECE", 4)
    tensors = awkward_tensors()
    assert take(tensors) == [numpy_lanes(name, one) for name, one in tensors.items()]


@both
def test_one_bit_changes_both_lanes(take: Take) -> None:
    """A flipped bit is seen, also in the last bytes of a row that is not full."""
    tensor = torch.zeros(20_001)
    before = take({"model/w": tensor})[0]
    tensor.view(torch.int32)[20_000] = 1
    after = take({"model/w": tensor})[0]
    assert before[0] != after[0]
    assert before[1] != after[1]


@both
def test_no_tensors_have_no_lanes(take: Take) -> None:
    """An empty state is one, too."""
    assert take({}) == []


def test_named_lanes_keep_the_order_and_count_rows() -> None:
    """The result is what the fingerprint of a state is made of; gradients do not get in the way."""
    tensors = {"model/b": torch.nn.Parameter(torch.zeros(3)), "model/a": torch.zeros(20_000)}
    found = named_lanes(tensors)
    assert [(one.name, one.num_rows) for one in found] == [("model/b", 1), ("model/a", 2)]


@pytest.mark.parametrize(
    "tensor",
    [torch.eye(2).to_sparse(), torch.empty(2, device="meta")],
    ids=["sparse", "meta"],
)
def test_tensor_without_plain_memory_is_refused(tensor: Tensor) -> None:
    """The error names it."""
    with pytest.raises(UnsupportedState, match=r"the state at model/w is of type Tensor \("):
        named_lanes({"model/w": tensor})


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_computes_the_lanes_of_the_host() -> None:
    """Integers that wrap give the same bits everywhere."""
    tensors = awkward_tensors()
    on_device = {name: tensor.cuda() for name, tensor in tensors.items()}
    assert named_lanes(on_device) == named_lanes(tensors)
