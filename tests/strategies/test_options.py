"""Options of the strategy change what they say."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback
from torch.utils.data import DataLoader, IterableDataset

from lightning_elche import AveragingEvent, CadenceConfig, ElCheStrategy, OuterOptimizer
from lightning_elche.testing import run_ranks
from tests.ranks import Recorder, fit, make_trainer


class WithAdam(Recorder):
    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), lr=0.01)


def adam_state(optimizer_state: str) -> tuple[torch.Tensor, float]:
    strategy = ElCheStrategy(optimizer_state=optimizer_state)  # type: ignore[arg-type]
    trainer, model = fit(2, model=WithAdam((1.0, 4.0)), strategy=strategy)
    state = trainer.optimizers[0].state[model.layers[0].weight]
    return state["exp_avg"].clone(), state["step"].item()


@pytest.mark.slow
def test_optimizer_states_are_averaged_by_default() -> None:
    """After the last event both ranks hold the same moments and counters."""
    first, second = (
        r.value for r in run_ranks(adam_state, world_size=2, optimizer_state="average")
    )
    assert torch.equal(first[0], second[0])
    assert first[1] == second[1]


class Compares(Callback):
    """Remembers whether the ranks' moments were equal at each event, by its index."""

    def __init__(self) -> None:
        self.are_equal: dict[int, bool] = {}

    def on_average_end(self, event: AveragingEvent) -> None:
        (optimizer,) = self.optimizers
        moments = torch.cat([state["exp_avg"].flatten() for state in optimizer.state.values()])
        others = [torch.empty_like(moments) for _ in range(2)]
        torch.distributed.all_gather(others, moments)
        if event.exchanged_bytes:
            self.are_equal[event.index] = torch.equal(*others)

    def on_train_start(self, trainer: Any, *_: Any) -> None:
        self.optimizers = trainer.optimizers


def states_averaged_every(every: int) -> dict[int, bool]:
    compares = Compares()
    strategy = ElCheStrategy(
        cadence=CadenceConfig(anchor=2, max_anchor=2), optimizer_state_every=every
    )
    fit(2, model=WithAdam((1.0, 2.0)), strategy=strategy, callbacks=[compares])
    return compares.are_equal


@pytest.mark.slow
@pytest.mark.parametrize("every", [1, 3])
def test_optimizer_states_are_averaged_at_every_nth_event(every: int) -> None:
    """Only then are the moments of both ranks equal; also across a short last window."""
    ranks = [rank.value for rank in run_ranks(states_averaged_every, world_size=2, every=every)]
    assert len(ranks[0]) > 3
    assert ranks[0] == ranks[1] == {n: (n + 1) % every == 0 for n in ranks[0]}


@pytest.mark.slow
def test_optimizer_states_stay_local_on_request() -> None:
    """Moments differ, and each counter is that of the own steps."""
    first, second = (r.value for r in run_ranks(adam_state, world_size=2, optimizer_state="keep"))
    assert not torch.equal(first[0], second[0])
    assert first[1] + second[1] == 50


class Partial(WithAdam):
    """One parameter gets a gradient on rank 0 only."""

    def __init__(self) -> None:
        super().__init__((1.0, 4.0))
        self.rare = torch.nn.Parameter(torch.ones(3))

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        loss = super().training_step(batch, batch_idx)
        return loss + self.rare.square().sum() if self.global_rank == 0 else loss


def rare_parameter() -> torch.Tensor:
    _, model = fit(2, model=Partial())
    return model.rare.detach()


@pytest.mark.slow
def test_parameter_that_only_one_rank_trains_is_averaged() -> None:
    """States of different layouts stay local; the parameters are equal all the same."""
    first, second = (rank.value for rank in run_ranks(rare_parameter, world_size=2))
    assert torch.equal(first, second)
    assert first[0] < 1.0


class Signs(IterableDataset[torch.Tensor]):
    """Rank 0 has four samples of the one kind, rank 1 twelve of the other."""

    def __iter__(self) -> Any:
        rank = torch.distributed.get_rank()
        return (torch.full((1,), float(rank)) for _ in range((4, 12)[rank]))


class Follows(Recorder):
    """Sets its weight to what the last batch says."""

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        self.layers[0].weight.data.fill_(batch[0].item())
        return self.layers(torch.ones(2, 8)).sum() * 0.0


def weight_of_streams(weighting: str) -> float:
    strategy = ElCheStrategy(
        weighting=weighting,  # type: ignore[arg-type]
        cadence=CadenceConfig(anchor=100),
    )
    model = Follows()
    make_trainer(2, strategy=strategy).fit(model, DataLoader(Signs(), batch_size=4))
    return model.layers[0].weight[0, 0].item()


@pytest.mark.slow
@pytest.mark.parametrize(("weighting", "expected"), [("auto", 0.5), ("samples", 0.75)])
def test_private_streams_weigh_by_rank_or_by_samples(weighting: str, expected: float) -> None:
    """One batch against three: equal ranks give a half, samples three quarters."""
    ranks = run_ranks(weight_of_streams, world_size=2, weighting=weighting)
    assert [rank.value for rank in ranks] == [expected, expected]


def clipped(max_grad_norm: float | None) -> float:
    strategy = ElCheStrategy(max_grad_norm=max_grad_norm)
    _, model = fit(1, size=8, val_size=8, strategy=strategy, max_steps=1)
    _, untrained = fit(1, size=8, val_size=8, limit_train_batches=0)
    old, new = untrained.parameters(), model.parameters()
    return sum(float((a - b).detach().square().sum()) for a, b in zip(old, new, strict=True)) ** 0.5


def test_gradients_are_clipped_to_the_norm() -> None:
    """With a learning rate of 0.01, one step moves the parameters by 0.01 times the norm."""
    assert clipped(0.5) == pytest.approx(0.005, rel=1e-3)
    assert clipped(None) > 0.01


def test_clipping_twice_is_refused() -> None:
    """The Trainer's own clipping and ours would compete."""
    with pytest.raises(ValueError, match="`max_grad_norm` must not be set together"):
        fit(1, val_size=8, strategy=ElCheStrategy(max_grad_norm=1.0), gradient_clip_val=2.0)


def scaled_rate() -> float:
    trainer, _ = fit(2, strategy=ElCheStrategy(lr_scale_ratio=0.5))
    return float(trainer.optimizers[0].param_groups[0]["lr"])


@pytest.mark.slow
def test_learning_rate_is_scaled_by_the_number_of_ranks() -> None:
    """Half of the linear rule: two ranks train at 1.5 times the rate."""
    assert [r.value for r in run_ranks(scaled_rate, world_size=2)] == pytest.approx([0.015] * 2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"policy": "ddp"}, '`policy` must be one of "sync", "cadence", "async", got \'ddp\''),
        ({"optimizer_state": "reset"}, "`optimizer_state` must be one of"),
        ({"weighting": "batches"}, "`weighting` must be one of"),
        (
            {"policy": "sync", "outer_optimizer": OuterOptimizer()},
            '`outer_optimizer` must be left out with `policy="sync"`.*got OuterOptimizer',
        ),
        (
            {"policy": "sync", "compression": "bf16"},
            "`compression` must be left out.*got 'bf16'",
        ),
        ({"policy": "sync", "optimizer_state_every": 2}, "`optimizer_state_every` must be left"),
        ({"optimizer_state_every": 0}, "`optimizer_state_every` must be >= 1, got 0"),
        (
            {"optimizer_state": "keep", "optimizer_state_every": 2},
            '`optimizer_state_every` must be left out with `optimizer_state="keep"`.*got 2',
        ),
        ({"group": "rack"}, '`group` must be one of "world", "node", got \'rack\''),
        (
            {"group": "node", "compression": "bf16"},
            "`compression` must be left out with `group=\"node\"`.*got 'bf16'",
        ),
        (
            {"group": "node", "policy": "sync"},
            '`group` must be "world" with `policy="sync"`.*got "node"',
        ),
        ({"compression": "fp8"}, '`compression` must be one of "none", "bf16", got \'fp8\''),
        ({"max_grad_norm": 0.0}, "`max_grad_norm` must be a positive number, got 0.0"),
        ({"lr_scale_ratio": -1.0}, r"`lr_scale_ratio` must be in \[0, 1\], got -1.0"),
    ],
)
def test_wrong_option_is_refused_with_its_name(options: dict[str, Any], message: str) -> None:
    """The message names the option, what it should be and what it was."""
    with pytest.raises(ValueError, match=message):
        ElCheStrategy(**options)


class Asks(Callback):
    """Asks the strategy what it does, at the end of training."""

    def on_train_end(self, trainer: Any, *_: Any) -> None:
        self.state = trainer.strategy.state()
        self.explanation = trainer.strategy.explain(last=2)


def ask() -> tuple[str, str]:
    asks = Asks()
    strategy = ElCheStrategy(cadence=CadenceConfig(anchor=2, max_anchor=2))
    fit(2, delays_ms=(1.0, 4.0), callbacks=[asks], strategy=strategy)
    return json.dumps(asks.state), asks.explanation


@pytest.mark.slow
def test_state_and_explanation_tell_what_happened() -> None:
    """The state is JSON with the plan; the explanation has a line for each event."""
    state, explanation = run_ranks(ask, world_size=2)[0].value
    assert json.loads(state)["global_step"] == 50
    assert json.loads(state)["plan"]["is_calibrated"] is True
    assert len(explanation.splitlines()) == 2
    assert "agreed last" in explanation
