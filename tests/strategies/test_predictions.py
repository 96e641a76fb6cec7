"""What a simulation predicts, beside what real ranks do."""

from __future__ import annotations

import time
from typing import Any

import pytest

from lightning_elche.control.simulation import Scenario, simulate
from lightning_elche.testing import run_ranks
from tests.ranks import Recorder, fit

pytestmark = [pytest.mark.slow, pytest.mark.timing]

BATCH_SIZE = 4
SOLO_MS = 1500.0


class Timed(Recorder):
    """Notes when every epoch begins and ends."""

    def on_train_epoch_start(self) -> None:
        self.begins = [*getattr(self, "begins", []), time.perf_counter()]

    def on_train_epoch_end(self) -> None:
        self.ends = [*getattr(self, "ends", []), time.perf_counter()]


def train(delays_ms: tuple[float, ...], batches: int) -> dict[str, Any]:
    model = Timed(delays_ms)
    world_size = len(delays_ms)
    trainer, _ = fit(world_size, size=BATCH_SIZE * batches, model=model, max_epochs=2)
    strategy: Any = trainer.strategy
    metrics = strategy.epoch_metrics
    return {
        "epoch_ms": [
            1000.0 * (end - begin) for begin, end in zip(model.begins, model.ends, strict=True)
        ],
        "transfer_ms": max(metrics.transfer_ms) / metrics.events if metrics else 0.0,
        "share": metrics.share if metrics else (1.0,),
    }


def run(*delays_ms: float, batches: int) -> dict[str, Any]:
    ranks = run_ranks(train, world_size=len(delays_ms), delays_ms=delays_ms, batches=batches)
    result: dict[str, Any] = ranks[0].value
    return result


def solo_ms(delay_ms: float) -> float:
    """Return how long a step of a rank alone takes, Lightning and all."""
    batches = round(SOLO_MS / delay_ms)
    alone: float = run(delay_ms, batches=batches)["epoch_ms"][1]
    return alone / batches


# In the first epoch of the second pair the probing window outlasts the data: a third is lost.
@pytest.mark.parametrize(("delays_ms", "batches"), [((20.0, 80.0), 150), ((20.0, 200.0), 60)])
def test_efficiency_is_as_simulated(delays_ms: tuple[float, ...], batches: int) -> None:
    """Over two epochs, real ranks lose what the simulation says, to 5 % of the sum of speeds.

    The ranks' own speeds and the cost of the exchange are measured, all else is predicted.
    """
    step_ms = [solo_ms(delay_ms) for delay_ms in delays_ms]
    real = run(*delays_ms, batches=batches)
    simulated = simulate(
        Scenario(
            world_size=2,
            step_ms=lambda rank, _: step_ms[rank],
            batches=batches,
            epochs=2,
            transfer_ms=real["transfer_ms"],
        )
    )
    efficiency = 2 * batches / sum(real["epoch_ms"]) / sum(simulated.solo_speeds)
    assert efficiency == pytest.approx(simulated.efficiency, abs=0.05)
    assert real["share"] == pytest.approx(simulated.epochs[-1].share, abs=0.03)
