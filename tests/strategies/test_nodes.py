"""Averaging inside nodes at every event and across them at some: four ranks on two nodes."""

from __future__ import annotations

import os
from collections import Counter
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback

from lightning_elche import AveragingEvent, CadenceConfig, ElCheStrategy, GuardConfig
from lightning_elche.testing import run_ranks
from tests.ranks import Recorder, fit, move_to_node, weights

pytestmark = pytest.mark.slow

# So short windows that an event across nodes always costs more than its share of one, and a guard
# that lets such events be rare in a model that learns fast.
COSTLY: dict[str, Any] = {
    "cadence": CadenceConfig(anchor=1, max_anchor=1, overhead_target=0.01),
    "guard": GuardConfig(enabled=False),
}


class Notes(Callback):
    """Remembers what kind of event followed which, and the parameters at a validation."""

    def __init__(self) -> None:
        self.crossed: list[bool] = []
        self.validated: list[dict[str, torch.Tensor]] = []

    def on_average_end(self, event: AveragingEvent) -> None:
        self.crossed.append(event.crossed_nodes)

    def on_validation_start(self, trainer: Any, pl_module: Recorder) -> None:
        del trainer
        self.validated.append(weights(pl_module))


def fit_on_nodes(policy: Any, backend: Any) -> dict[str, Any]:
    move_to_node(int(os.environ["RANK"]))
    notes = Notes()
    trainer, model = fit(
        2,
        num_nodes=2,
        size=240,
        val_size=8,
        max_epochs=2,
        val_check_interval=0.5,
        delays_ms=(1.0, 3.0, 2.0, 6.0),
        callbacks=[notes],
        strategy=ElCheStrategy(
            group="node", policy=policy, backend=backend, timeout_s=30.0, **COSTLY
        ),
    )
    return {
        "ids": model.ids,
        "crossed": notes.crossed,
        "validated": [*notes.validated, weights(model)],
        "val_loss": float(trainer.callback_metrics["val_loss"]),
    }


@pytest.mark.parametrize("backend", ["device", "cpu"])
@pytest.mark.parametrize("policy", ["cadence", "async"])
def test_samples_are_seen_once_and_replicas_are_equal_where_it_counts(
    policy: str, backend: str
) -> None:
    """At every validation and at the end, though most events leave the nodes apart."""
    results = run_ranks(fit_on_nodes, world_size=4, policy=policy, backend=backend)
    ranks = [result.value for result in results]
    seen = Counter(i for rank in ranks for epoch in (0, 1) for i in rank["ids"][epoch])
    assert seen == Counter([*range(240), *range(240)])
    first, *others = ranks
    for other in others:
        assert other["crossed"] == first["crossed"]
        assert other["val_loss"] == first["val_loss"]
        for own, theirs in zip(first["validated"], other["validated"], strict=True):
            assert all(torch.equal(own[name], theirs[name]) for name in own)
    # Exchanged in the background, windows are as long as that takes: on a busy machine few.
    assert backend == "cpu" or not all(first["crossed"])


def explain_on_nodes() -> str:
    move_to_node(int(os.environ["RANK"]))
    said: list[str] = []

    class Asks(Callback):
        def on_train_end(self, trainer: Any, *_: Any) -> None:
            said.append(trainer.strategy.explain(last=1000))

    # By counts, and many, since the first steps of a busy machine may take as long as all others.
    strategy = ElCheStrategy(group="node", policy="async", timeout_s=30.0, **COSTLY)
    fit(2, num_nodes=2, size=2000, callbacks=[Asks()], strategy=strategy)
    return said[0]


def test_explanation_tells_which_events_stayed_inside_nodes() -> None:
    """Some did, some did not."""
    lines = run_ranks(explain_on_nodes, world_size=4)[0].value.splitlines()
    inside = ["exchange inside nodes" in line for line in lines]
    assert any(inside)
    assert not all(inside)
