"""A snapshot brings back all that training changes, in place and bit for bit."""

from __future__ import annotations

import math
import random
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from lightning_elche.ops.finite import read_together
from lightning_elche.ops.snapshot import LiveState, Snapshot

CPU = torch.device("cpu")


class Net(nn.Module):
    """Has odd tensors of all kinds."""

    odd: Tensor
    later: Tensor | None

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Linear(3, 2)
        self.tied = self.layer.weight
        self.conv = nn.Conv2d(2, 3, 2).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.fp16 = nn.Parameter(torch.randn(5).half())
        self.register_buffer("odd", torch.randn(1, 4).expand(3, 4), persistent=False)
        self.register_buffer("scalar", torch.tensor(3))
        self.register_buffer("waves", torch.randn(2, dtype=torch.complex64))
        self.register_buffer("view", torch.arange(6.0)[::2])
        self.register_buffer("later", None)
        self.note = "first"

    def get_extra_state(self) -> str:
        return self.note

    def set_extra_state(self, state: str) -> None:
        self.note = state


def made(**options: Any) -> tuple[Net, torch.optim.Optimizer, LiveState]:
    net = Net()
    optimizer = torch.optim.AdamW(net.parameters(), lr=0.01)
    return net, optimizer, LiveState(module=net, device=CPU, optimizers=[optimizer], **options)


def train(net: Net, optimizer: torch.optim.Optimizer) -> None:
    """Change everything."""
    optimizer.zero_grad()
    sum(parameter.float().square().sum() for parameter in net.parameters()).backward()  # type: ignore[union-attr]
    optimizer.step()
    for buffer in (net.odd[:1, :1], net.scalar, net.waves, net.view):
        buffer.add_(1)  # type: ignore[operator]
    net.note = "second"


def values(net: Net, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    named = [*net.named_parameters(), *net.named_buffers()]
    return {
        "net": {name: tensor.detach().clone() for name, tensor in named},
        "optimizer": {
            (index, key): value.clone()
            for index, state in enumerate(optimizer.state.values())
            for key, value in state.items()
        },
        "note": list(net.note.encode()),
    }


def assert_equal(first: Any, second: Any) -> None:
    torch.testing.assert_close(first, second, rtol=0.0, atol=0.0)


def test_all_is_as_before() -> None:
    """Tied, strided, expanded, complex, half, 0-d, extra state; after more than one step."""
    net, optimizer, live = made()
    train(net, optimizer)
    before, snapshot = values(net, optimizer), Snapshot()
    snapshot.put(live)
    for _ in range(3):
        train(net, optimizer)
    snapshot.restore(live)
    assert_equal(values(net, optimizer), before)


def test_the_tensors_stay_the_same() -> None:
    """What refers to them sees what was restored."""
    net, optimizer, live = made()
    train(net, optimizer)
    snapshot = Snapshot()
    snapshot.put(live)
    tensors = [*net.parameters(), *net.buffers()]
    tensors += [value for state in optimizer.state.values() for value in state.values()]
    places = [tensor.data_ptr() for tensor in tensors]
    train(net, optimizer)
    snapshot.restore(live)
    assert [tensor.data_ptr() for tensor in tensors] == places
    assert all(parameter.grad is None for parameter in net.parameters())


def test_state_that_came_later_is_deleted() -> None:
    """Of an optimizer that had not stepped, and of a buffer that was None."""
    net, optimizer, live = made()
    snapshot = Snapshot()
    snapshot.put(live)
    train(net, optimizer)
    net.later = torch.ones(2)
    snapshot.restore(live)
    assert len(optimizer.state) == 0
    assert net.later is None


def test_buffer_that_was_replaced_comes_back() -> None:
    """By one of another shape, or by None."""
    net, _, live = made()
    net.later = torch.ones(2)
    snapshot = Snapshot()
    snapshot.put(live)
    net.view, net.later = torch.zeros(7), None
    snapshot.restore(live)
    assert_equal([net.view, net.later], [torch.tensor([0.0, 2.0, 4.0]), torch.ones(2)])


def test_options_and_schedules_come_back() -> None:
    """Rates in tensors stay the same tensors."""
    net = Net()
    rate = torch.tensor(0.5)
    optimizer = torch.optim.AdamW(net.parameters(), lr=rate)
    scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5)
    live = LiveState(module=net, device=CPU, optimizers=[optimizer], schedulers=[scheduler])
    snapshot = Snapshot()
    snapshot.put(live)
    train(net, optimizer)
    scheduler.step()
    optimizer.param_groups[0]["betas"] = (0.1, 0.2)
    snapshot.restore(live)
    group = optimizer.param_groups[0]
    assert (scheduler.last_epoch, group["betas"], float(rate)) == (0, (0.9, 0.999), 0.5)
    assert group["lr"] is rate


def test_schedules_may_be_kept() -> None:
    """With the options of the optimizers."""
    net = Net()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.5)
    scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5)
    live = LiveState(module=net, device=CPU, optimizers=[optimizer], schedulers=[scheduler])
    snapshot = Snapshot()
    snapshot.put(live)
    train(net, optimizer)
    scheduler.step()
    snapshot.restore(live, keep_schedules=True)
    assert (scheduler.last_epoch, optimizer.param_groups[0]["lr"]) == (1, 0.25)


def test_random_numbers_are_drawn_again() -> None:
    """Of Python, numpy and PyTorch."""
    _, _, live = made()
    snapshot = Snapshot()
    snapshot.put(live)
    draws = []
    for _ in range(2):
        draws.append((random.random(), float(np.random.rand()), float(torch.rand(()))))
        snapshot.restore(live)
    assert draws[0] == draws[1]


class Counter:
    """Has a state."""

    def __init__(self) -> None:
        self.state = {"count": 1}

    def state_dict(self) -> dict[str, int]:
        return self.state

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.state = state


def test_other_states_come_back_as_they_were() -> None:
    """They are copied, not referred to, and may be restored several times."""
    counter = Counter()
    _, _, live = made(others={"counter": counter})
    snapshot = Snapshot()
    snapshot.put(live)
    for _ in range(2):
        counter.state["count"] += 5
        snapshot.restore(live)
    assert counter.state == {"count": 1}


def test_values_of_optimizers_that_are_no_tensors_come_back() -> None:
    """LBFGS keeps numbers and lists of tensors."""
    parameter = nn.Parameter(torch.tensor([3.0, 1.0]))
    module = nn.ParameterList([parameter])
    optimizer = torch.optim.LBFGS(module.parameters(), lr=0.1, max_iter=2)

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = parameter.square().sum() + parameter.prod()
        loss.backward()
        return loss

    live = LiveState(module=module, device=CPU, optimizers=[optimizer])
    snapshot, ends = Snapshot(), []
    optimizer.step(closure)
    snapshot.put(live)
    for _ in range(2):
        optimizer.step(closure)
        optimizer.step(closure)
        ends.append(parameter.tolist())
        snapshot.restore(live)
    assert ends[0] == ends[1]


def test_sums_tell_of_a_value_that_is_not_finite() -> None:
    """In parameters and optimizer states."""
    net, optimizer, live = made()
    train(net, optimizer)
    snapshot, seen = Snapshot(), []
    for tensor in (net.fp16, optimizer.state[net.conv.weight]["exp_avg_sq"]):
        snapshot.put(live)
        seen.append(all(map(math.isfinite, read_together(snapshot.sums))))
        kept = tensor.detach().clone()
        tensor.data[..., 0] = math.inf
        snapshot.put(live)
        seen.append(all(map(math.isfinite, read_together(snapshot.sums))))
        tensor.data.copy_(kept)
    assert seen == [True, False, True, False]


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf, 1e30])
@pytest.mark.parametrize("kind", ["Adam", "AdamW", "NAdam", "RAdam"])
def test_gradients_that_were_not_finite_are_seen_in_moments(kind: str, bad: float) -> None:
    """Or whose squares were not: in the second moments, however long ago it was."""
    net = nn.Linear(3, 2)
    optimizer = getattr(torch.optim, kind)(net.parameters())
    live = LiveState(module=net, device=CPU, optimizers=[optimizer])
    kept = [parameter.detach().clone() for parameter in net.parameters()]
    for number in (bad, 1.0, 1.0):
        for parameter in net.parameters():
            parameter.grad = torch.full_like(parameter, number)
        optimizer.step()
    for parameter, before in zip(net.parameters(), kept, strict=True):
        parameter.data.copy_(before)
    snapshot = Snapshot()
    snapshot.put(live)
    for sums in (snapshot.sums, live.sums()):
        assert not all(map(math.isfinite, read_together(sums)))


def test_buffers_that_hold_infinities_from_the_start_are_not_looked_at() -> None:
    """Masks do; they come back like others."""
    net, _, live = made()
    net.view[0] = -math.inf
    unchecked = live.infinite_buffers()
    snapshot = Snapshot(unchecked=unchecked)
    snapshot.put(live)
    net.view.zero_()
    snapshot.restore(live)
    assert unchecked == {"view"}
    assert all(map(math.isfinite, read_together([*snapshot.sums, *live.sums(without=unchecked)])))
    assert net.view.tolist() == [-math.inf, 2.0, 4.0]


def test_memory_is_allocated_once() -> None:
    """Its size is that of the tensors, each stored element once, and of what is encoded."""
    net, optimizer, live = made()
    train(net, optimizer)
    snapshot = Snapshot()
    snapshot.put(live)
    held, places = snapshot.nbytes, [view.data_ptr() for view in snapshot._blocks.views]
    train(net, optimizer)
    snapshot.put(live)
    assert [view.data_ptr() for view in snapshot._blocks.views] == places
    num_parameters = 6 + 2 + 24 + 3
    states = 3 * 4 * num_parameters + 3 * 2 * 5 + 5 * 4  # AdamW: two moments and a step each
    tensors = states + 4 * 4 + 8 + 2 * 8 + 3 * 4
    assert held - len(snapshot._rest) == tensors


def test_what_cannot_be_copied_is_named() -> None:
    """Before training, not when it is needed."""
    module = nn.Module()
    module.register_buffer("edges", torch.eye(3).to_sparse())
    live = LiveState(module=module, device=CPU)
    with pytest.raises(TypeError, match="`edges` must be a dense tensor, got"):
        live.parts()
