"""One backward pass per task: rows, what is reached, and what is added to `.grad`."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from lightning_elche.exceptions import NoGradientsError
from lightning_elche.ops.per_task import (
    TaskGradients,
    add_weighted,
    backward_each,
    backward_weighted,
)
from lightning_elche.ops.reach import search_graph

ONE = torch.tensor(1.0)


class Net(nn.Module):
    """A trunk, which all losses reach, and a head for each."""

    def __init__(self, num_tasks: int = 2) -> None:
        super().__init__()
        self.trunk = nn.Parameter(torch.tensor([1.0, 2.0, 3.0]))
        self.heads = nn.ParameterList(
            nn.Parameter(torch.full((3,), float(task + 1))) for task in range(num_tasks)
        )
        self.unused = nn.Parameter(torch.zeros(()))

    def losses(self) -> list[Tensor]:
        """Of the task k: the trunk has gradient k + 1, its head that of the trunk's values."""
        return [(self.trunk * head).sum() for head in self.heads]

    def grads(self) -> list[list[float] | None]:
        return [None if p.grad is None else p.grad.tolist() for p in self.parameters()]


def collect(
    net: Net, losses: Sequence[Tensor], gradients: TaskGradients, *, frees_graph: bool = False
) -> None:
    named = dict(net.named_parameters())
    gradients.begin(len(losses), named, lambda: [search_graph(loss) for loss in losses])
    backward_each(losses, gradients, ONE, frees_graph=frees_graph)


def reweight(losses: Sequence[Tensor], gradients: TaskGradients, weights: list[float]) -> None:
    backward_weighted(losses, gradients, ONE, weights)


def write(_losses: Sequence[Tensor], gradients: TaskGradients, weights: list[float]) -> None:
    add_weighted(gradients, weights)


both_modes = pytest.mark.parametrize("finish", [reweight, write])
Finish = Callable[[Sequence[Tensor], TaskGradients, list[float]], None]


@both_modes
def test_shared_parameters_are_weighted_and_others_are_not(finish: Finish) -> None:
    """Also with a weight of 0, by which nothing could be divided; what is unused has none."""
    net, gradients = Net(), TaskGradients(shared_only=True)
    losses = net.losses()
    collect(net, losses, gradients)
    finish(losses, gradients, [0.0, 3.0])
    plain = [1.0, 2.0, 3.0]
    assert net.grads() == [[6.0, 6.0, 6.0], None, plain, plain]


@both_modes
def test_scope_of_all_weights_heads_as_well(finish: Finish) -> None:
    """As one vector of all parameters."""
    net, gradients = Net(), TaskGradients(shared_only=False)
    losses = net.losses()
    collect(net, losses, gradients)
    finish(losses, gradients, [0.5, 3.0])
    assert net.grads() == [[6.5, 6.5, 6.5], None, [0.5, 1.0, 1.5], [3.0, 6.0, 9.0]]


def test_products_are_over_the_parameters_in_scope() -> None:
    """Heads lengthen the gradients only where they are in it."""
    net = Net()
    for shared_only, expected in ((True, [[3.0, 6.0], [6.0, 12.0]]), (False, [[17, 6], [6, 26]])):
        gradients = TaskGradients(shared_only=shared_only)
        collect(net, net.losses(), gradients)
        assert gradients.gram().tolist() == expected


@both_modes
def test_gradients_are_added_to_those_there_are(finish: Finish) -> None:
    """As in an accumulation of several batches."""
    net, gradients = Net(), TaskGradients(shared_only=True)
    for _ in range(2):
        losses = net.losses()
        collect(net, losses, gradients)
        finish(losses, gradients, [1.0, 2.0])
    assert net.grads()[0] == [10.0, 10.0, 10.0]
    assert net.grads()[2] == [2.0, 4.0, 6.0]


def test_backward_for_each_task_leaves_grad_alone() -> None:
    """So that hooks of others, such as those of DDP, see one backward pass."""
    net, gradients = Net(), TaskGradients(shared_only=True)
    collect(net, net.losses(), gradients)
    assert net.grads() == [None] * 4


@both_modes
def test_task_without_gradient_is_a_row_of_zeros(finish: Finish) -> None:
    """Labels may be missing; the other tasks still share the trunk."""
    net, gradients = Net(3), TaskGradients(shared_only=True)
    losses = [net.losses()[0], torch.tensor(4.0), net.losses()[2]]
    collect(net, losses, gradients)
    assert gradients.gram().tolist() == [[3.0, 0.0, 9.0], [0.0, 0.0, 0.0], [9.0, 0.0, 27.0]]
    finish(losses, gradients, [2.0, 5.0, 1.0])
    assert net.grads()[0] == [5.0, 5.0, 5.0]


@both_modes
def test_rows_follow_what_the_tasks_reach(finish: Finish) -> None:
    """A task that is missing, then back, then a head that becomes shared."""
    net, gradients = Net(), TaskGradients(shared_only=True)
    for case, expected in (("both", 8.0), ("one", 1.0), ("both", 8.0), ("crossed", 12.0)):
        losses = net.losses()
        if case == "one":
            losses[1] = torch.tensor(0.0)
        if case == "crossed":
            losses[0] = losses[0] + losses[1]
        collect(net, losses, gradients)
        weights = [1.0, 1.0] if not gradients.has_scope else [2.0, 3.0]
        finish(losses, gradients, weights)
        assert net.grads()[0] == [expected] * 3
        net.zero_grad()


@both_modes
def test_parameters_of_several_types_are_combined(finish: Finish) -> None:
    """Each gets a gradient of its own type and layout."""
    net, gradients = Net(), TaskGradients(shared_only=False)
    net.trunk = nn.Parameter(torch.ones(3, dtype=torch.bfloat16))
    net.heads[0] = nn.Parameter(torch.ones(2, 3).t()[:, 0].double())
    losses = [(net.trunk * head).sum().float() for head in net.heads]
    collect(net, losses, gradients)
    finish(losses, gradients, [2.0, 1.0])
    assert [p.grad.dtype for p in net.parameters() if p.grad is not None] == [
        torch.bfloat16,
        torch.float64,
        torch.float32,
    ]
    assert net.grads()[0] == [4.0, 4.0, 4.0]


def test_hook_of_the_user_acts_once_on_a_plain_gradient() -> None:
    """It has acted already when the gradient of a single task is put in place."""
    net, gradients = Net(), TaskGradients(shared_only=True)
    net.heads[0].register_hook(lambda gradient: 10.0 * gradient)
    losses = net.losses()
    collect(net, losses, gradients)
    reweight(losses, gradients, [2.0, 2.0])
    assert net.grads()[2] == [10.0, 20.0, 30.0]
    assert not net.heads[1]._backward_hooks  # ours are gone


def test_gradient_that_two_parameters_have_in_common_is_copied() -> None:
    """Clipping one of them in place would change the other."""
    gradients = TaskGradients(shared_only=True)
    first, second = nn.Parameter(torch.ones(3)), nn.Parameter(torch.ones(3))
    losses = [((first + second) * 2.0).sum(), torch.tensor(0.0)]
    named = {"first": first, "second": second}
    gradients.begin(2, named, lambda: [search_graph(loss) for loss in losses])
    backward_each(losses, gradients, ONE, frees_graph=True)
    add_weighted(gradients, [1.0, 1.0])
    assert first.grad is not None
    first.grad.mul_(0.0)
    assert second.grad is not None
    assert second.grad.tolist() == [2.0, 2.0, 2.0]


def test_last_pass_frees_the_graph_where_it_is_the_last() -> None:
    """And keeps it for one more otherwise."""
    net = Net()
    kept, freed = net.losses(), [loss * loss for loss in net.losses()]
    collect(net, kept, TaskGradients(shared_only=True))
    torch.autograd.backward(kept)
    collect(net, freed, TaskGradients(shared_only=True), frees_graph=True)
    with pytest.raises(RuntimeError, match="backward through the graph a second time"):
        freed[1].backward()


def test_sparse_and_complex_gradients_are_refused() -> None:
    """By the name of the parameter."""
    table = nn.Embedding(4, 2, sparse=True)
    phase = nn.Parameter(torch.ones(2, dtype=torch.complex64))
    sparse = table(torch.tensor([1])).sum()
    for loss, named, message in (
        (sparse, {"table.weight": table.weight}, "`table.weight` must have .* got sparse"),
        (phase.abs().sum(), {"phase": phase}, "`phase` must have a dense and real .*complex64"),
    ):
        gradients = TaskGradients(shared_only=True)
        reach = search_graph(loss)
        gradients.begin(2, named, lambda reach=reach: [reach] * 2)  # type: ignore[misc]
        with pytest.raises(TypeError, match=message):
            backward_each([loss, loss], gradients, ONE, frees_graph=False)


def test_losses_that_reach_nothing_are_refused() -> None:
    """There is nothing to train."""
    net, gradients = Net(), TaskGradients(shared_only=True)
    outside = torch.ones(1, requires_grad=True)
    with pytest.raises(NoGradientsError, match=r"^no gradients available for aggregation$"):
        collect(net, [outside.sum(), outside.sum()], gradients)


def test_graph_tells_what_a_loss_reaches() -> None:
    """Leaves of other losses are not among it; a leaf reaches itself."""
    net = Net()
    leaves, is_compiled = search_graph(net.losses()[0])
    assert leaves == {id(net.trunk), id(net.heads[0])}
    assert not is_compiled
    assert search_graph(net.trunk).leaves == {id(net.trunk)}


def test_reentrant_checkpointing_is_refused() -> None:
    """Its parameters would look as if no loss reached them."""
    net = Net()
    hidden = checkpoint(
        lambda x: x * net.trunk, torch.ones(3, requires_grad=True), use_reentrant=True
    )
    with pytest.raises(RuntimeError, match=r"`use_reentrant` .* must be False .*, got True"):
        search_graph(hidden.sum())
    visible = checkpoint(lambda x: x * net.trunk, torch.ones(3), use_reentrant=False)
    assert search_graph(visible.sum()).leaves == {id(net.trunk)}


def test_zeros_of_a_compiled_graph_are_no_reach() -> None:
    """It returns zeros for the heads of other losses, which are not shared for that."""
    net, gradients = Net(), TaskGradients(shared_only=True)
    compiled = torch.compile(net.losses, backend="aot_eager")
    for _ in range(2):
        losses = compiled()
        assert search_graph(losses[0]).is_compiled
        collect(net, losses, gradients)
        assert gradients.gram().tolist() == [[3.0, 6.0], [6.0, 12.0]]
        reweight(losses, gradients, [2.0, 1.0])
    assert net.grads() == [[8.0, 8.0, 8.0], None, [2.0, 4.0, 6.0], [2.0, 4.0, 6.0]]
