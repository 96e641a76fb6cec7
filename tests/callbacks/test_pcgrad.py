"""What PCGrad takes and refuses."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from lightning.pytorch.callbacks import GradientAccumulationScheduler
from lightning.pytorch.strategies import FSDPStrategy
from torch import Tensor

from lightning_elche.callbacks.pcgrad import PCGrad
from lightning_elche.callbacks.pcgrad_losses import losses_in
from lightning_elche.callbacks.pcgrad_options import check_trainer
from lightning_elche.exceptions import AggregationError, NoGradientsError, WeightsError
from tests.callbacks.two_tasks import ThreeTasks, fit, flat, seeded, trainer_with

L1, L2 = torch.tensor(1.0, requires_grad=True), torch.tensor(2.0, requires_grad=True)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"source": "loss"}, r"`source` must be one of \('losses', 'microbatches'\), got 'loss'"),
        ({"mode": "fast"}, "`mode` must be one of"),
        ({"scope": "heads"}, "`scope` must be one of"),
        ({"every_k": 0}, "`every_k` must be >= 1, got 0"),
        ({"start_step": -1}, "`start_step` must be >= 0, got -1"),
        ({"seed": 2**63}, "`seed` must fit into 64 bits"),
        ({"eps": -1.0}, r"`eps` must be in \[0, 1\), got -1.0"),
        ({"weighting": "mgda"}, "`weighting` must be a callable, .* got 'mgda'"),
        ({"conflict_warn": 75.0}, r"`conflict_warn` must be in \[0, 1\], got 75.0"),
        ({"task_weights": [1.0, 0.0]}, "`task_weights` must be finite and > 0, got"),
        ({"task_weights": {"a": float("nan")}}, "`task_weights` must be finite and > 0"),
        ({"source": "microbatches", "task_weights": [1.0]}, "`task_weights` must be None with"),
    ],
)
def test_option_that_is_not_valid_is_refused(options: dict[str, Any], message: str) -> None:
    """The message names it, says what it should be and what it was."""
    with pytest.raises(ValueError, match=message):
        PCGrad(**options)


@pytest.mark.parametrize("output", [None, L1, {"loss": L1, "note": 1}])
def test_output_without_losses_is_not_touched(output: object) -> None:
    """It is not for us."""
    assert losses_in(output, None) is None


def test_losses_are_added_and_everything_else_is_detached() -> None:
    """Lightning keeps what a step returns, and would keep its graph."""
    found = losses_in(
        {"losses": {"a": L1, "b": L2}, "hidden": [L1 * 2.0], "note": 1}, {"a": 1, "b": 3}
    )
    assert found is not None
    assert (found.names, [loss.item() for loss in found.weighted]) == (("a", "b"), [1.0, 6.0])
    assert found.output["loss"] is found.total
    assert found.total.item() == 7.0
    detached = [*found.output["losses"].values(), *found.output["hidden"]]
    assert [(value.item(), value.requires_grad) for value in detached] == [
        (1.0, False),
        (2.0, False),
        (2.0, False),
    ]
    assert found.output["note"] == 1


@pytest.mark.parametrize(
    ("output", "task_weights", "error", "message"),
    [
        ({"loss": L1, "losses": [L2]}, None, ValueError, 'either "loss" or "losses", got both'),
        ({"losses": L1}, None, ValueError, 'a list, tuple or mapping as "losses", got Tensor'),
        ([L1, torch.ones(2)], None, ValueError, r"`losses\[1\]` must be .* got shape \(2,\)"),
        ({"a": L1, "b": 3}, None, ValueError, r"`losses\['b'\]` must be a scalar tensor, got int"),
        ([], None, NoGradientsError, "^no gradients available for aggregation$"),
        ([L1, L2], [1.0], WeightsError, "`task_weights` must be 2 numbers, one a task, got 1"),
        ({"a": L1}, {"b": 1.0}, WeightsError, r"must name the tasks \['a'\], got \['b'\]"),
        ([L1], {"b": 1.0}, WeightsError, r"must name the tasks \['0'\], got \['b'\]"),
    ],
)
def test_losses_that_are_not_clear_are_refused(
    output: object, task_weights: Any, error: type[Exception], message: str
) -> None:
    """Rather than guessed."""
    with pytest.raises(error, match=message):
        losses_in(output, task_weights)


def test_losses_without_gradient_are_refused() -> None:
    """In the words of all aggregations."""

    class Detached(ThreeTasks):
        def losses(self, batch: Any) -> list[Tensor]:
            return [loss.detach() for loss in super().losses(batch)]

    with pytest.raises(NoGradientsError, match="no gradients available") as caught:
        fit(Detached(), PCGrad())
    assert isinstance(caught.value, (AggregationError, RuntimeError))


def test_single_loss_that_reaches_no_parameter_is_refused() -> None:
    """Also where there is nothing to combine."""

    class Outside(ThreeTasks):
        def losses(self, batch: Any) -> list[Tensor]:
            return [batch[0].requires_grad_().sum()]

    with pytest.raises(NoGradientsError, match="no gradients available"):
        fit(Outside(), PCGrad())


def test_plain_loss_is_trained_on_with_one_warning() -> None:
    """There is nothing to aggregate, which is rarely meant."""
    with pytest.warns(UserWarning, match="nothing for PCGrad to aggregate") as caught:
        _, model = fit(seeded("sum"), PCGrad())
    assert len([one for one in caught if "PCGrad" in str(one.message)]) == 1
    assert flat(model).equal(flat(fit(seeded("sum"))[1]))


@pytest.mark.filterwarnings("ignore:`training_step` returned `None`:UserWarning")
def test_step_that_returns_nothing_is_skipped() -> None:
    """As without us; the next one is trained."""

    class Skips(ThreeTasks):
        def training_step(self, batch: Any, batch_idx: int) -> Any:
            return None if batch_idx == 0 else self.losses(batch)

    callback = PCGrad()
    fit(Skips(), callback, batches=2)
    assert (callback.step, callback._meter.epoch_count, callback._meter.num_skipped) == (2, 0, 0)


class Manual(ThreeTasks):
    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False


class Second(PCGrad):
    """Two of one class are refused by Lightning itself, since both have a state."""


class Newton(ThreeTasks):
    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.LBFGS(self.parameters())


@pytest.mark.parametrize(
    ("model", "callbacks", "message"),
    [
        (Manual, [PCGrad()], "`automatic_optimization` of the module must be True .* got False"),
        (Newton, [PCGrad()], "must make one backward pass a step with PCGrad, got LBFGS"),
        (ThreeTasks, [PCGrad(), Second()], "`callbacks` must contain one PCGrad, got 2"),
        (ThreeTasks, [PCGrad("microbatches")], "`accumulate_grad_batches` .* at least 2 .* got 1"),
    ],
)
def test_training_that_would_be_wrong_is_refused(
    model: type[ThreeTasks], callbacks: list[PCGrad], message: str
) -> None:
    """Before it begins."""
    with pytest.raises(ValueError, match=message):
        fit(model(), *callbacks)


def test_schedule_of_accumulations_is_taken() -> None:
    """Windows may come later."""
    schedule = GradientAccumulationScheduler({1: 3})
    callback = PCGrad("microbatches", per_task=True)
    fit(seeded("sum"), callback, schedule, max_epochs=2)
    assert callback.step == 8


def test_sharded_strategies_are_refused() -> None:
    """A rank has only a part of each gradient there."""
    trainer = trainer_with()
    trainer._accelerator_connector.strategy = FSDPStrategy()
    with pytest.raises(ValueError, match=r"`strategy` must leave .* got FSDPStrategy"):
        check_trainer(trainer, PCGrad()._options, kind=PCGrad)


def test_lengths_of_weights_of_a_weighting_are_checked() -> None:
    """It is the user's."""
    with pytest.raises(WeightsError, match="`weighting` must return 3 weights, got 2"):
        fit(seeded(), PCGrad(weighting=lambda _: [1.0, 1.0]))


def test_weights_that_are_not_finite_are_ones_and_counted() -> None:
    """So that the step is that of the plain sum."""
    callback = PCGrad(weighting=lambda gram: gram.new_full((3,), torch.nan))
    _, model = fit(seeded(), callback)
    assert callback._meter.num_nonfinite == 6
    torch.testing.assert_close(flat(model), flat(fit(seeded("sum"))[1]), rtol=0.0, atol=3e-7)
