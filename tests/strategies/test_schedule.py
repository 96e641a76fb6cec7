"""A run of unequal ranks, repeated bit for bit although the ranks have other speeds."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from lightning_elche import AveragingEvent, CadenceConfig, ElCheStrategy
from lightning_elche.testing import run_ranks
from tests.ranks import Recorder, fit, weights

pytestmark = pytest.mark.slow


class Averages(Callback):
    """Remembers what the parameters were after each averaging event, and the plan."""

    def __init__(self) -> None:
        self.seen: list[tuple[int, int, int, str]] = []
        self.module: LightningModule | None = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self.module = pl_module

    def on_average_end(self, event: AveragingEvent) -> None:
        assert self.module is not None
        digest = hashlib.sha256()
        for value in self.module.state_dict().values():
            digest.update(value.numpy().tobytes())
        self.seen.append((event.index, event.global_step, event.plan.anchor, digest.hexdigest()))


class Dropping(Recorder):
    """With dropout, so that each rank draws random numbers of its own."""

    def __init__(self, delays_ms: Any) -> None:
        super().__init__(delays_ms)
        self.layers.append(torch.nn.Dropout(0.3))


def train(
    folder: str, verb: str, delays_ms: tuple[float, ...], lr: float = 0.01, **options: Any
) -> dict[str, Any]:
    cadence = CadenceConfig(anchor=4, max_anchor=4)
    strategy = ElCheStrategy(timeout_s=30.0, cadence=cadence, **options)
    {"record": strategy.record_schedule, "follow": strategy.follow_schedule}[verb](folder)
    averages, model = Averages(), Dropping(delays_ms)
    model.configure_optimizers = lambda: torch.optim.SGD(model.parameters(), lr=lr)  # type: ignore[method-assign]
    trainer, _ = fit(
        2, size=120, model=model, strategy=strategy, max_epochs=2, val_size=8, callbacks=[averages]
    )
    return {
        "ids": model.ids,
        "seen": averages.seen,
        "weights": weights(model),
        "plan": strategy._restored["rounds"]["controller"],
        "step": trainer.global_step,
    }


def on_ranks(**options: Any) -> list[dict[str, Any]]:
    ranks = run_ranks(train, world_size=2, env={"ELCHE_DELAYS_SEED": ""}, **options)
    return [rank.value for rank in ranks]


@pytest.mark.parametrize(
    ("policy", "backend"), [("cadence", "device"), ("async", "device"), ("cadence", "cpu")]
)
def test_run_is_repeated_with_other_speeds(tmp_path: Path, policy: str, backend: str) -> None:
    """Every average of every rank, the batches behind it, and what was planned after it."""
    options = {"folder": str(tmp_path), "policy": policy, "backend": backend}
    then = on_ranks(verb="record", delays_ms=(1.0, 6.0), **options)
    now = on_ranks(verb="follow", delays_ms=(7.0, 1.0), **options)
    assert len(then[0]["ids"][0]) > len(then[1]["ids"][0])
    for one, other in zip(then, now, strict=True):
        for name in ("seen", "ids", "plan", "step"):
            assert one[name] == other[name], name
        for name, value in one["weights"].items():
            assert torch.equal(value, other["weights"][name]), name


def test_other_numbers_are_found_at_the_first_event(tmp_path: Path) -> None:
    """All ranks stop there, and say where."""
    folder = str(tmp_path)
    on_ranks(verb="record", delays_ms=(1.0, 3.0), folder=folder)
    results = run_ranks(
        train,
        world_size=2,
        check=False,
        env={"ELCHE_DELAYS_SEED": ""},
        folder=folder,
        verb="follow",
        delays_ms=(1.0, 1.0),
        lr=0.02,
    )
    for result in results:
        assert "ScheduleDiverged: The run differs from the recorded one at" in result.output
        assert "averaging event 0: `loss_sum` of rank 0 was" in result.output
