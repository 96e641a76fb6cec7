"""A fit with bad batches ends as one that never had them, or says that it cannot."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback
from torch import Tensor

from lightning_elche.callbacks.rollback import Rollback
from lightning_elche.control.recovery import RecoveryPolicy
from lightning_elche.control.spike import SpikeConfig
from lightning_elche.exceptions import RecoveryHalted
from lightning_elche.ops.ring import RingConfig
from tests.callbacks.rolled import Stateful, assert_same, batches, fit_rolled, scaled

pytestmark = [
    pytest.mark.filterwarnings("ignore:Safety level ELEVATED"),
    # The scheduler wraps `step`, which a loss scaler does not call where it skips one.
    pytest.mark.filterwarnings("ignore:Detected call of `lr_scheduler.step"),
]

EVENTS = "lightning_elche.events"


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Several threads would wait for each other most of the time."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def assert_never_had(
    undone: Sequence[int],
    rollback: Rollback,
    *,
    kinds: Sequence[str] = (),
    bad: Mapping[str, Sequence[int]],
    **options: Any,
) -> None:
    """Check that a fit ends as one without the batches that should have been undone."""
    data = batches(**bad)
    ours, _ = fit_rolled(data, rollback, model=Stateful(*kinds), **options)
    clean = [batch for index, batch in enumerate(data) if index not in undone]
    other, _ = fit_rolled(clean, model=Stateful(*kinds), **options)
    assert_same(ours, other)


@pytest.mark.parametrize("bad", ["nan", "huge"])
@pytest.mark.parametrize("precision", ["fp32", "scaler"])
@pytest.mark.parametrize("scheduler", ["cosine", "onecycle"])
@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_one_bad_batch_leaves_no_trace(
    optimizer: str, scheduler: str, precision: str, bad: str
) -> None:
    """With dropout, BatchNorm, and a buffer that is not persistent; to the last bit."""
    data, ends = batches(**{bad: [8]}), []
    for kept, callbacks in ((data, [Rollback()]), ([*data[:8], *data[9:]], [])):
        plugins = [scaled()] if precision == "scaler" else []
        model = Stateful(optimizer, scheduler)
        ends.append(fit_rolled(kept, *callbacks, model=model, plugins=plugins)[0])
    assert_same(ends[0], ends[1])


def test_bad_batch_changes_the_end_without_rollback() -> None:
    """So that the test above can fail."""
    data = batches(huge=[8])
    with pytest.raises(AssertionError, match=r"not equal|mismatch"):
        assert_same(fit_rolled(data)[0], fit_rolled([*data[:8], *data[9:]])[0])


def test_first_batch_may_be_bad() -> None:
    """When optimizers have no state yet."""
    assert_never_had([0], Rollback(), bad={"nan": [0]})


def test_last_batch_may_be_bad() -> None:
    """Nothing comes after it."""
    assert_never_had([11], Rollback(), bad={"nan": [11]})


def test_two_bad_batches_are_two_incidents() -> None:
    """Each costs one batch."""
    rollback = Rollback()
    assert_never_had([3, 9], rollback, bad={"nan": [3], "huge": [9]})
    assert (rollback.incidents, rollback.effective_step) == (2, 10)


def test_second_bad_batch_in_a_row_is_the_same_incident() -> None:
    """The state before the first one may have been wrong, so that one more batch is undone."""
    rollback = Rollback()
    assert_never_had([2, 3, 4], rollback, bad={"nan": [3, 4]})
    assert rollback.incidents == 1


def test_wrecked_parameters_that_are_finite_cost_one_batch_more() -> None:
    """The loss of batch 6 is as others', but its step is a jump; batch 7 tells."""
    rollback = Rollback()
    assert_never_had([6, 7, 8], rollback, kinds=("sgd",), bad={"kick": [6]})
    assert rollback.incidents == 1


def test_parameters_that_are_no_numbers_are_noticed() -> None:
    """The loss of batch 6 is finite, its gradient is not; the snapshot after it is dropped."""
    assert_never_had([6, 7], Rollback(), bad={"no_gradient": [6]})


def test_parameters_are_looked_at_before_the_end_of_an_epoch() -> None:
    """Since a validation and a checkpoint follow."""
    assert_never_had([11], Rollback(), bad={"no_gradient": [11]})


def test_snapshots_may_be_rare() -> None:
    """All batches since the last one are undone."""
    assert_never_had([6, 7], Rollback(RingConfig(every=3)), bad={"nan": [7]})


def test_checks_may_be_rare() -> None:
    """One that begins a bad stretch is found at its end; what is from before it is restored."""
    spike = SpikeConfig(check_every=4)
    assert_never_had([3, 4, 5, 6, 7], Rollback(spike=spike), bad={"nan": [5]})


def test_spike_in_the_midst_of_a_rare_check_is_noticed() -> None:
    """The largest value counts, not the last one; its traces are found when they show again."""
    spike = SpikeConfig(check_every=2, warmup_steps=2)
    rollback = Rollback(RingConfig(depth=3), spike)
    fit_rolled(batches(huge=[8]), rollback)
    assert rollback.incidents >= 1


@pytest.mark.parametrize("bad", [(0, 5), (1, 0)])
def test_epoch_schedule_goes_on_whichever_batch_is_undone(bad: tuple[int, int]) -> None:
    """Also if the end of an epoch lies between the snapshot and the restoration."""
    model = Stateful("sgd", "cosine", "epoch")
    model.bad_at = [bad]
    rollback = Rollback(RingConfig(every=4))
    trainer, _ = fit_rolled(batches(6), rollback, model=model, epochs=2)
    assert rollback.incidents == 1
    assert trainer.lr_scheduler_configs[0].scheduler.last_epoch == 2


class Skips(Stateful):
    """Leaves out batches."""

    skipped: Sequence[int] = ()

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        return None if batch_idx in self.skipped else super().training_step(batch, batch_idx)


@pytest.mark.filterwarnings("ignore:.*returned `None`")
def test_rest_of_an_accumulation_window_is_a_smaller_step() -> None:
    """Batches 6 and 7 of the window 6 to 8 are undone; 8 makes its step alone."""
    rollback = Rollback()
    ours, _ = fit_rolled(batches(nan=[7]), rollback, model=Stateful(), accumulate_grad_batches=3)
    model = Skips()
    model.skipped = (6, 7)
    other, _ = fit_rolled(batches(), model=model, accumulate_grad_batches=3)
    assert_same(ours, other)
    assert rollback.effective_step == 4


def test_accumulated_loss_is_judged_as_it_was_returned() -> None:
    """Lightning hands on a fourth of it."""
    rollback = Rollback(spike=SpikeConfig(floor=1e6))
    model = Stateful()
    fit_rolled(batches(4), rollback, model=model, accumulate_grad_batches=4)
    weights = (0.9**3, 0.1 * 0.9**2, 0.1 * 0.9, 0.1)
    mean = sum(weight * loss for weight, loss in zip(weights, model.losses, strict=True))
    assert rollback.state_dict()["detector"]["mean"] == pytest.approx(mean)


@pytest.mark.filterwarnings("ignore:.*returned `None`")
def test_step_that_is_skipped_has_no_verdict() -> None:
    """Nothing is learnt from it, nor is it wrong."""
    model = Skips()
    model.skipped = range(1, 11)
    rollback = Rollback()
    fit_rolled(batches(), rollback, model=model)
    assert rollback.incidents == 0
    assert rollback.state_dict()["detector"]["num_healthy"] == 2


class TwoLosses(Stateful):
    """Returns another value as well, which is bad once."""

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        loss = super().training_step(batch, batch_idx)
        return {"loss": loss, "quality": torch.tensor(torch.nan if batch_idx == 5 else 1.0)}


def test_another_value_may_be_monitored() -> None:
    """The batch is undone though its loss is fine."""
    rollback = Rollback(spike=SpikeConfig(monitor="quality"))
    fit_rolled(batches(), rollback, model=TwoLosses())
    assert (rollback.incidents, rollback.effective_step) == (1, 11)


def test_value_that_is_not_there_is_an_error() -> None:
    """With the names of those that are."""
    rollback = Rollback(spike=SpikeConfig(monitor="qualty"))
    with pytest.raises(ValueError, match=r"got 'qualty'\. There are: loss, quality\."):
        fit_rolled(batches(), rollback, model=TwoLosses())


class Manual(Stateful):
    """Optimizes by itself."""

    def __init__(self) -> None:
        super().__init__("adamw", None)
        self.automatic_optimization = False

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        loss = super().training_step(batch, batch_idx)
        optimizer: Any = self.optimizers()
        optimizer.zero_grad()
        self.manual_backward(loss)
        optimizer.step()
        return loss


def test_manual_optimization_is_undone_as_well() -> None:
    """To the last bit."""
    data = batches(nan=[8])
    ours, _ = fit_rolled(data, Rollback(), model=Manual())
    assert_same(ours, fit_rolled([*data[:8], *data[9:]], model=Manual())[0])


class Counts(Callback):
    """Has a state that rewinds."""

    is_rewindable = True

    def __init__(self) -> None:
        self.count = 0

    def on_train_batch_end(self, *_: Any) -> None:
        self.count += 1

    def state_dict(self) -> dict[str, Any]:
        return {"count": self.count}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.count = state_dict["count"]


def test_state_of_a_rewindable_callback_is_undone() -> None:
    """It counts the batches that were learnt; those since the snapshot are not."""
    counts = Counts()
    fit_rolled(batches(nan=[7]), counts, Rollback(RingConfig(every=3)))
    assert counts.count == 10


# Limits


def halted(*args: Any, **options: Any) -> RecoveryHalted:
    try:
        fit_rolled(*args, **options)
    except RecoveryHalted as err:
        return err
    raise AssertionError("the run was not halted")


def test_one_incident_more_than_the_budget_ends_the_run() -> None:
    """With what was before it in memory, at the step that it belongs to."""
    rollback = Rollback(policy=RecoveryPolicy(max_rollbacks=1))
    model = Stateful()
    error = halted(batches(nan=[3, 8]), rollback, model=model)
    assert error.reason == "More than 1 rollbacks within 1000 steps: loss nan"
    assert (error.step, error.level, error.is_poisoned, error.exit_code) == (7, 4, False, 40)
    assert all(bool(parameter.isfinite().all()) for parameter in model.parameters())


def test_three_bad_batches_in_a_row_end_the_run() -> None:
    """They are no accident; a snapshot from before is in memory."""
    error = halted(batches(nan=[3, 4, 5]), Rollback())
    assert error.reason == "No snapshot is from before the damage: loss nan"
    assert not error.is_poisoned


def test_deeper_ring_survives_more_bad_batches_in_a_row() -> None:
    """Each costs a batch before, too."""
    assert_never_had([1, 2, 3, 4, 5], Rollback(RingConfig(depth=3)), bad={"nan": [3, 4, 5]})


def test_parameters_spoiled_from_the_start_are_poisoned() -> None:
    """There is nothing to restore, which the error tells."""
    model = Stateful()
    model.head.weight.data.fill_(torch.nan)
    error = halted(batches(), Rollback(), model=model)
    assert (error.is_poisoned, error.step) == (True, 1)


def test_run_may_stop_instead_of_raising() -> None:
    """As by `Trainer.should_stop`, with the state before the damage."""
    policy = RecoveryPolicy(max_rollbacks=0, on_halt="stop")
    rollback = Rollback(policy=policy)
    data = batches(nan=[5])
    ours, _ = fit_rolled(data, rollback)
    assert rollback.level.name == "HALT"
    assert_same(ours, fit_rolled(data[:5])[0])


def test_epochs_in_a_row_with_an_incident_end_the_run() -> None:
    """At the end of the second one, though the budget is not used up."""
    rollback = Rollback(policy=RecoveryPolicy(max_failed_epochs=2))
    error = halted(batches(nan=[3]), rollback, epochs=3)
    assert (error.reason, error.step) == ("2 epochs in a row had an incident", 22)


def test_level_rises_and_is_told(caplog: pytest.LogCaptureFixture) -> None:
    """One line for each incident and each change, and a warning from ELEVATED on."""
    caplog.set_level(logging.INFO, logger=EVENTS)
    with pytest.warns(UserWarning, match="Safety level ELEVATED at step 8: 2 incidents in short"):
        fit_rolled(batches(nan=[3, 9]), Rollback())
    told = [json.loads(record.message) for record in caplog.records if record.name == EVENTS]
    rollbacks = [(line["step"], line["cause"]) for line in told if line["event"] == "rollback"]
    levels = [(line["previous"], line["level"]) for line in told if line["event"] == "safety"]
    assert rollbacks == [(3, "loss nan"), (8, "loss nan")]
    assert levels == [(0, 1), (1, 2)]


def test_clean_epoch_brings_the_level_back() -> None:
    """The incident stays counted."""
    model, rollback = Stateful(), Rollback()
    model.bad_at = [(0, 3)]
    seen = []

    class Sees(Callback):
        def on_train_epoch_start(self, *_: Any) -> None:
            seen.append(rollback.level.name)

    fit_rolled(batches(6), rollback, Sees(), model=model, epochs=2)
    assert (seen, rollback.level.name, rollback.incidents) == (["NORMAL", "ELEVATED"], "NORMAL", 1)
