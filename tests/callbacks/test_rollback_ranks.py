"""Bad batches on several ranks: all undo the same step, or each its own."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback

from lightning_elche import CadenceConfig, ElCheStrategy
from lightning_elche.callbacks.rollback import Rollback
from lightning_elche.control.recovery import RecoveryPolicy
from lightning_elche.control.spike import SpikeConfig
from lightning_elche.exceptions import RecoveryHalted
from lightning_elche.testing import run_ranks
from tests.callbacks.rolled import Stateful, batches, fit_rolled, state_of
from tests.ranks import Recorder, fit

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:Safety level ELEVATED"),
]

WITHIN_S = 60.0
CADENCE = CadenceConfig(anchor=3, max_anchor=3)


def fit_ddp(data: Sequence[Any]) -> tuple[Any, Rollback]:
    """Fit under DDP; rank r gets batches r, r + 2 and so on."""
    rollback, own = Rollback(), data[int(os.environ["RANK"]) :: 2]
    options: dict[str, Any] = {"strategy": "ddp", "use_distributed_sampler": False}
    return fit_rolled(own, rollback, model=Stateful(), devices=2, **options)[0], rollback


def train_ddp() -> tuple[int, int]:
    """Return the incidents; both fits end in the same state."""
    data = batches(24, nan=[17])
    ours, rollback = fit_ddp(data)
    state = state_of(ours)
    clean, other = fit_ddp([*data[:16], *data[18:]])
    torch.testing.assert_close(state, state_of(clean), rtol=0.0, atol=0.0)
    return rollback.incidents, other.incidents


def assert_equal(ours: Any, other: Any) -> None:
    torch.testing.assert_close(
        {name: torch.from_numpy(value) for name, value in ours["tensors"].items()},
        {name: torch.from_numpy(value) for name, value in other["tensors"].items()},
        rtol=0.0,
        atol=0.0,
    )


def test_batch_that_is_bad_on_one_rank_is_undone_on_all() -> None:
    """They end as if neither had had its ninth batch, each with its own statistics."""
    results = run_ranks(train_ddp, world_size=2, timeout_s=WITHIN_S)
    assert [result.value for result in results] == [(1, 0), (1, 0)]


class Reports(Callback):
    """Keeps what ranks report at averaging events."""

    def __init__(self) -> None:
        self.events: list[Any] = []

    def on_average_end(self, event: Any) -> None:
        self.events.append(event)


class Spoiled(Recorder):
    """Has a batch, or a whole window between two events, with inputs that are no numbers.

    What lasts goes on in the windows that follow, until all ranks have gone back.
    """

    lasts = False

    def __init__(self, reports: Reports, ranks: Sequence[int], batch: int, window: int) -> None:
        super().__init__((1.0, 3.0))
        self.reports, self.ranks, self.batch, self.window = reports, ranks, batch, window

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        events = self.reports.events
        is_bad = batch_idx == self.batch or len(events) == self.window
        if self.lasts and len(events) >= self.window:
            is_bad = all(event.restored_event == -1 for event in events)
        if is_bad and self.global_rank in self.ranks:
            batch = (batch[0] * math.nan, batch[1])
        return super().training_step(batch, batch_idx)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.01, momentum=0.9)


def train(
    ranks: Sequence[int],
    *,
    batch: int = -1,
    window: int = -1,
    lasts: bool = False,
    strategy: dict[str, Any],
    policy: dict[str, Any],
) -> dict[str, Any]:
    """Fit under ElCheStrategy and return what this rank knows."""
    rollback = Rollback(spike=SpikeConfig(factor=1e9), policy=RecoveryPolicy(**policy))
    reports = Reports()
    model = Spoiled(reports, ranks, batch, window)
    model.lasts = lasts
    ended = None
    try:
        fit(
            int(os.environ["WORLD_SIZE"]),
            model=model,
            callbacks=[rollback, reports],
            size=400,
            strategy=ElCheStrategy(timeout_s=30.0, cadence=CADENCE, **strategy),
        )
    except RecoveryHalted as err:
        ended = (err.reason, err.rank, err.exit_code)
    weights = [
        (own.samples, own.weight, own.sits_out) for event in reports.events for own in event.reports
    ]
    return {
        "ended": ended,
        "incidents": rollback.incidents,
        "level": rollback.level.name,
        "weights": weights,
        "restored": [event.restored_event for event in reports.events],
        "tensors": {name: value.numpy() for name, value in model.state_dict().items()},
        "is_finite": all(bool(value.isfinite().all()) for value in model.state_dict().values()),
        "has_finite_moments": all(
            bool(value.isfinite().all())
            for optimizer in model.trainer.optimizers
            for state in optimizer.state.values()
            for value in state.values()
        ),
    }


def run(ranks: Sequence[int], **arguments: Any) -> list[dict[str, Any]]:
    arguments = {"ranks": ranks, "strategy": {}, "policy": {}, **arguments}
    results = run_ranks(train, world_size=2, timeout_s=WITHIN_S, **arguments)
    return [result.value for result in results]


@pytest.mark.parametrize("backend", ["device", "cpu"])
def test_rank_repairs_itself_between_events(backend: str) -> None:
    """Nobody else notices; what it has undone, four samples, does not weigh."""
    first, second = run([1], batch=3, strategy={"backend": backend})
    assert (first["incidents"], second["incidents"]) == (0, 1)
    lost = [samples - weight for samples, weight, _ in first["weights"]]
    assert (sum(lost), max(lost)) == (4, 4)
    assert_equal(first, second)
    assert first["is_finite"]


@pytest.mark.parametrize("backend", ["device", "cpu"])
def test_rank_that_cannot_repair_itself_sits_out(backend: str) -> None:
    """It weighs nothing, adopts the average and goes on."""
    first, second = run([1], window=1, strategy={"backend": backend})
    out = [weight for _, weight, sits_out in first["weights"] if sits_out]
    assert len(out) >= 1
    assert set(out) == {0.0}
    assert_equal(first, second)
    assert first["is_finite"]


def test_moments_that_stay_local_are_clean_after_sitting_out() -> None:
    """They are those of an earlier event, or none."""
    first, second = run([1], window=1, strategy={"optimizer_state": "keep"})
    assert first["is_finite"]
    assert second["has_finite_moments"]


@pytest.mark.timing  # on a busy machine one rank may be without a step between two events
def test_ranks_go_back_together_if_none_is_sound() -> None:
    """To the last average with which a batch was healthy, not the one that failed twice."""
    # By counts, since the first steps of a busy machine may take as long as all others.
    first, second = run([0, 1], window=2, lasts=True, strategy={"policy": "async"})
    # The third event, unless a busy machine has left one rank nothing to do before it.
    went_back = [index for index in first["restored"] if index != -1]
    assert went_back[:1] == [0]
    assert second["restored"] == first["restored"]
    assert_equal(first, second)
    assert first["is_finite"]


def test_run_ends_if_there_is_no_event_to_go_back_to() -> None:
    """On all ranks, with what is left of it in memory."""
    first, second = run([0, 1], window=0)
    assert first["ended"][0].startswith("No rank's parameters are sound at averaging event 0")
    assert (first["ended"][0], first["ended"][2]) == (second["ended"][0], 40)


def test_rank_over_its_budget_ends_the_run_on_all() -> None:
    """With the same words, at the same event."""
    first, second = run([1], batch=3, policy={"max_rollbacks": 0})
    ended = ("More than 0 rollbacks within 1000 steps: loss nan", 1, 40)
    assert (first["ended"], second["ended"]) == (ended, ended)
    assert second["is_finite"]
