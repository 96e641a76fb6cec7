"""Batches that do not fit into memory, on one device."""

from __future__ import annotations

import logging
from typing import Any

import pytest
import torch
from lightning.pytorch.strategies import SingleDeviceStrategy
from torch import Tensor
from torch.utils.data import DataLoader

from lightning_elche import ElCheStrategy
from lightning_elche.callbacks.run_events import subscribe
from lightning_elche.coordination.faults import FaultConfig
from lightning_elche.exceptions import BreakerTripped
from lightning_elche.loops.lightning_names import AutomaticOptimization
from tests.callbacks.faulty import Guarding, Hungry, Place, fit_hungry, numbered
from tests.callbacks.rolled import assert_same, scaled


@pytest.mark.parametrize("is_fp16", [False, True], ids=["fp32", "fp16"])
@pytest.mark.parametrize("place", ["forward", "backward"])
def test_skipped_batch_leaves_no_trace(place: Place, is_fp16: bool) -> None:
    """Bit for bit, as in a run that never had it: parameters, optimizer, scale, count of steps."""

    def options() -> dict[str, Any]:
        return {"plugins": [scaled()]} if is_fp16 else {}

    skipped = fit_hungry(Hungry({2: place}), numbered(5), Guarding(), **options())
    without = fit_hungry(Hungry(), numbered(5, left_out=[2]), **options())
    assert_same(skipped, without)
    assert skipped.global_step == without.global_step == 4


@pytest.mark.parametrize(
    ("at", "place", "worthless"),
    [
        (3, "forward", (3,)),  # the first of a group: the others make a smaller step
        (4, "forward", (4,)),  # in its midst: the same
        (5, "forward", (3, 4, 5)),  # the last: no step, and what was accumulated is lost
        (4, "backward", (3, 4)),  # what was accumulated is lost, the last makes a step
    ],
)
def test_group_of_batches_keeps_what_it_can(
    at: int, place: Place, worthless: tuple[int, ...]
) -> None:
    """Of three that are accumulated; as if those that are lost had had no gradients."""
    model, reference, guarding = Hungry({at: place}), Hungry(worthless=worthless), Guarding()
    batches, options = numbered(6), {"accumulate_grad_batches": 3}
    fit_hungry(model, batches, guarding, **options)
    # Adam would step by its moments, where a whole group had gradients of zero.
    fit_hungry(reference, batches[:3] if at == 5 else batches, **options)
    states = dict(model.state_dict()), dict(reference.state_dict())
    torch.testing.assert_close(*states, rtol=0.0, atol=0.0)
    assert guarding.guard.status()["skipped"] == [len(worthless)]


def test_step_that_changes_parameters_before_it_runs_out_is_not_skipped() -> None:
    """An optimizer that asks for several losses has changed them by then."""

    class Searching(Hungry):
        calls = 0

        def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
            self.calls += 1
            if self.calls == 3:
                torch.empty(1 << 60)
            return super().training_step(batch, batch_idx)

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.LBFGS(self.parameters())

    with pytest.raises(RuntimeError, match="can't allocate memory"):
        fit_hungry(Searching(), numbered(3), Guarding())


class Manual(Hungry):
    """Optimizes by itself."""

    automatic_optimization = False

    def training_step(self, batch: Tensor, batch_idx: int) -> None:
        self.manual_backward(super().training_step(batch, batch_idx))


@pytest.mark.parametrize(
    ("model", "config", "strategy"),
    [
        (Manual, FaultConfig(), ElCheStrategy),
        (Hungry, FaultConfig(oom="raise"), ElCheStrategy),
        (Hungry, FaultConfig(), lambda: SingleDeviceStrategy(torch.device("cpu"))),
    ],
    ids=["manual", "raise", "another strategy"],
)
def test_error_is_raised_where_nothing_can_be_skipped(
    model: type[Hungry], config: FaultConfig, strategy: Any
) -> None:
    """As without the guard."""
    with pytest.raises(RuntimeError, match="can't allocate memory"):
        fit_hungry(model({1: "forward"}), numbered(3), Guarding(config), strategy=strategy())


def test_other_strategy_is_told_of_once(caplog: pytest.LogCaptureFixture) -> None:
    """By its name."""
    strategy = SingleDeviceStrategy(torch.device("cpu"))
    with caplog.at_level(logging.INFO):
        fit_hungry(Hungry(), numbered(3), Guarding(), strategy=strategy)
    assert caplog.text.count("Faults of a rank end the run with SingleDeviceStrategy") == 1


def test_without_a_guard_the_error_is_raised() -> None:
    """Also after a fit that had one."""
    trainer = fit_hungry(Hungry({1: "forward"}), numbered(3), Guarding())
    trainer.callbacks = []  # type: ignore[attr-defined]
    trainer.fit_loop.epoch_progress.reset()
    loop = trainer.fit_loop.epoch_loop.automatic_optimization
    assert type(loop) is AutomaticOptimization
    with pytest.raises(RuntimeError, match="can't allocate memory"):
        trainer.fit(trainer.lightning_module, DataLoader(numbered(3), batch_size=None))


def test_run_ends_where_no_batch_fits() -> None:
    """After five in a row and one more for each time that several ranks would have sat out."""
    seen: list[str] = []
    unsubscribe = subscribe(lambda kind, _: seen.append(kind))
    model = Hungry(dict.fromkeys(range(2, 20), "forward"))
    with pytest.raises(BreakerTripped) as raised:
        fit_hungry(model, numbered(20), Guarding())
    unsubscribe()
    assert (raised.value.key, raised.value.failures) == ("rank:0:oom", 8)
    assert [kind for kind in seen if kind != "batch_skipped"] == [*3 * ["sit_out"], "breaker"]


class Resizable(torch.utils.data.Sampler[list[int]]):
    """Reads its batch size for each batch."""

    def __init__(self, batch_size: int) -> None:
        self.batch_size = batch_size

    def set_batch_size(self, batch_size: int) -> None:
        self.batch_size = batch_size

    def __iter__(self) -> Any:
        rows = list(range(64))
        while rows:
            yield rows[: self.batch_size]
            rows = rows[self.batch_size :]

    def __len__(self) -> int:
        return 64


def test_batch_size_is_halved_until_batches_fit() -> None:
    """Where the sampler takes another one."""

    class Large(Hungry):
        def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
            if len(batch) > 2:
                torch.empty(1 << 60)
            return super().training_step(batch, batch_idx)

    sampler, guarding = Resizable(8), Guarding(FaultConfig(max_consecutive=1))
    fit_hungry(Large(), DataLoader(torch.zeros(64, 5), batch_sampler=sampler), guarding)
    assert sampler.batch_size == 2
    assert guarding.guard.status()["skipped"] == [2]
