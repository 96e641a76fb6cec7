"""PCGrad on several ranks."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from lightning.pytorch.strategies import DDPStrategy
from torch import Tensor

from lightning_elche import ElCheStrategy
from lightning_elche.callbacks.pcgrad import PCGrad
from lightning_elche.testing import run_ranks
from tests.callbacks.two_tasks import FirstGradient, ThreeTasks, fit, flat, seeded

pytestmark = pytest.mark.slow


class Unequal(ThreeTasks):
    """Sees another part of the data on each rank, and remembers its gradients."""

    def __init__(self) -> None:
        super().__init__()
        self.unused = torch.nn.Parameter(torch.zeros(2))

    def losses(self, batch: Any) -> list[Tensor]:
        features, targets = batch
        return super().losses((features, targets + self.global_rank))


def train_ddp() -> dict[str, Any]:
    """Return the parameters after a fit under DDP, and how refused fits ended."""
    found: dict[str, Any] = {}
    fits = {
        "unused": (PCGrad(), {"strategy": DDPStrategy(find_unused_parameters=True)}),
        "used": (PCGrad(), {"strategy": "ddp"}),
        "sync policy": (PCGrad(), {"strategy": ElCheStrategy(policy="sync")}),
        "sum": (None, {"strategy": "ddp"}),
        "direct": (PCGrad(mode="direct"), {"strategy": "ddp"}),
        "microbatches": (PCGrad("microbatches"), {"strategy": "ddp", "accumulate_grad_batches": 2}),
        "sync": (PCGrad(mode="direct"), {"strategy": ElCheStrategy(policy="sync")}),
        "static": (PCGrad(), {"strategy": DDPStrategy(static_graph=True)}),
    }
    for name, (callback, options) in fits.items():
        torch.manual_seed(3)
        model = Unequal()
        if name != "unused":
            del model.unused
        model.form = "sum" if callback is None else "dict"
        try:
            callbacks = [] if callback is None else [callback]
            fit(model, *callbacks, **options, devices=2)  # type: ignore[arg-type]
        except ValueError as err:
            found[name] = str(err)
        else:
            found[name] = flat(torch.nn.ModuleList([model.trunk, model.heads])).tolist()
    return found


@pytest.fixture(scope="module")
def ddp() -> list[dict[str, Any]]:
    return [rank.value for rank in run_ranks(train_ddp, world_size=2, timeout_s=60.0)]


def test_ranks_of_ddp_stay_equal_to_the_last_bit(ddp: list[dict[str, Any]]) -> None:
    """Each combines its own gradients, and DDP averages what comes out."""
    first, second = ddp
    assert first["used"] == second["used"] == first["sync policy"]
    assert max(abs(a - b) for a, b in zip(first["used"], first["sum"], strict=True)) > 1e-3


def test_unused_parameters_change_nothing_under_ddp(ddp: list[dict[str, Any]]) -> None:
    """With `find_unused_parameters=True` the bits are the same."""
    assert ddp[0]["unused"] == ddp[1]["unused"] == ddp[0]["used"]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("direct", '`mode` must be "reweight" with DDPStrategy that averages gradients, got'),
        ("microbatches", '`source` must be "losses" with DDPStrategy that averages gradients, got'),
        ("sync", '`mode` must be "reweight" with ElCheStrategy that averages gradients, got'),
        ("static", "`static_graph` of DDP must be False with PCGrad, got True"),
    ],
)
def test_what_would_let_ranks_drift_apart_is_refused(
    ddp: list[dict[str, Any]], name: str, message: str
) -> None:
    """On every rank, before a step is made."""
    assert ddp[0][name].startswith(message)
    assert ddp[1][name].startswith(message)


def train_elche(mode: str) -> dict[str, Any]:
    callback, seen = PCGrad(mode=mode), FirstGradient()  # type: ignore[arg-type]
    strategy = ElCheStrategy(timeout_s=30.0)
    trainer, model = fit(seeded("dict"), seen, callback, batches=12, devices=2, strategy=strategy)
    return {
        "own": seen.own.tolist(),
        "published": seen.published.tolist(),
        "step": callback.step,
        "global_step": trainer.global_step,
        "parameters": flat(model).tolist(),
    }


@pytest.mark.parametrize("mode", ["reweight", "direct"])
def test_ranks_of_elche_count_and_combine_their_own_steps(mode: str) -> None:
    """Each steps by what PCGrad makes of its own batch; parameters are averaged, steps add up."""
    ranks = run_ranks(train_elche, world_size=2, timeout_s=60.0, mode=mode)
    first, second = (rank.value for rank in ranks)
    for rank in (first, second):
        assert rank["own"] == pytest.approx(rank["published"], abs=1e-6)
    assert first["own"] != second["own"]
    assert first["parameters"] == second["parameters"]
    assert first["step"] + second["step"] == first["global_step"] == 12
