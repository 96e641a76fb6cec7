"""What the registry grants a run, and how its ranks hear of it."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from lightning.pytorch import Callback
from lightning.pytorch.strategies import DDPStrategy
from torch.distributed import HashStore

from lightning_elche import CadenceConfig, ElCheStrategy
from lightning_elche.callbacks.admission import Admission, link_of
from lightning_elche.callbacks.coordination import Coordination
from lightning_elche.callbacks.host_grant import GrantLink
from lightning_elche.coordination.config import CoordinationConfig
from lightning_elche.coordination.host.claim import Claim
from lightning_elche.coordination.host.governor import GovernorConfig
from lightning_elche.coordination.registry.config import RegistryConfig
from lightning_elche.coordination.registry.limits import LimitsConfig
from lightning_elche.coordination.registry.request import Request
from lightning_elche.distributed.control_store import ControlStore
from lightning_elche.exceptions import AdmissionDenied
from lightning_elche.testing import run_ranks
from tests.callbacks.admitted import SMALL, Admitted, registry_in
from tests.coordination.calls import eventually
from tests.ranks import fit


def hear(grants: list[float | None], *, order: tuple[int, int]) -> list[float | None]:
    """Return what rank 1 has after each event, of what rank 0 has before it."""
    store, heard = HashStore(), list[float | None]()
    claims = [Claim(lambda: 1.0, lambda _: None) for _ in range(2)]
    links = [GrantLink(one, ControlStore(store, "run"), rank) for rank, one in enumerate(claims)]
    for granted in grants:
        claims[0].take(granted)
        for rank in order:
            links[rank].exchange()
        heard.append(claims[1].granted)
    return heard


def test_grant_of_rank_zero_is_that_of_all_ranks() -> None:
    """However small it is; and forgotten if it is withdrawn."""
    grants = [None, 0.4, 0.4, 0.25, None, 1e-9, 1.0, None]
    assert hear(grants, order=(0, 1)) == [None, 0.4, 0.4, 0.25, None, 1e-6, 1.0, None]


def test_rank_that_is_first_at_an_event_hears_at_the_next_one() -> None:
    """Nobody waits for rank zero."""
    assert hear([0.4, 0.4, None, None], order=(1, 0)) == [None, 0.4, 0.4, None]


class Waits(Callback):
    """Begins to train once the registry has granted something, and keeps what is told then."""

    def __init__(self, coordination: Coordination) -> None:
        self.coordination = coordination
        self.told: dict[str, Any] = {}

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        parts = self.coordination.run.parts
        (admission,) = (one for one in parts if one.name == "admission")
        assert eventually(lambda: admission.status()["granted"] is not None)
        self.told = {one.name: one.status() for one in parts}


def test_grant_limits_the_governor_of_a_run(tmp_path: Path) -> None:
    """Who is alone asks for all of the machine, and gets what the targets leave."""
    config = CoordinationConfig(
        governor=GovernorConfig(enabled=True, signal="cpu", period_s=600.0),
        limits=LimitsConfig(admission="enforce"),
        registry=RegistryConfig(folder=str(tmp_path / "shared")),
    )
    coordination = Coordination(config)
    waits = Waits(coordination)
    fit(1, **SMALL, callbacks=[coordination, waits], default_root_dir=tmp_path)
    admission, governor = waits.told["admission"], waits.told["host"]["governor"]
    assert (admission["requested"], admission["granted"]) == (1.0, 0.8)
    assert (governor["limit"], governor["duty"]) == (0.8, 0.8)


def test_strategy_without_averaging_says_who_hears_a_grant() -> None:
    """Rank zero, for which all others wait."""
    trainer: Any = SimpleNamespace(strategy=DDPStrategy(), world_size=2, global_rank=0)
    with pytest.warns(UserWarning, match="With DDPStrategy only rank zero hears"):
        link_of(trainer, Claim(lambda: 1.0, lambda _: None), "run")()


class Hears(Callback):
    """Meets until this rank has heard of a grant, rank zero not before it has one."""

    def __init__(self, claim: Claim) -> None:
        self.claim = claim
        self.heard: list[float | None] = []

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        assert not trainer.is_global_zero or eventually(lambda: self.claim.granted is not None)

    def on_average_end(self, event: Any) -> None:
        self.heard.append(self.claim.granted)


def ask_on_ranks(folder: str) -> list[tuple[str, object]]:
    registry, answers = registry_in(folder), list[tuple[str, object]]()
    for kind in ("sweep", "train"):
        limits = LimitsConfig(admission="enforce", kind=kind)
        claim = Claim(lambda: 1.0, lambda _: None)
        part = Admission(limits, lambda: registry, claim=claim)
        callback, hears = Admitted(part, registry), Hears(claim)
        strategy = ElCheStrategy(timeout_s=30.0, cadence=CadenceConfig(anchor=4, max_anchor=4))
        told: Any = {"callbacks": [callback, hears], "strategy": strategy}
        try:
            fit(2, size=400, val_size=4, delays_ms=(2.0, 3.0), **told)
            answers.append(("trained", (callback.seen, hears.heard[1:])))
        except AdmissionDenied as err:
            answers.append((err.decision.code, None))
    return answers


@pytest.mark.slow
def test_all_ranks_hear_the_answer(tmp_path: Path) -> None:
    """The one sweep is taken, and both end; the train is let in, and averages show its progress.

    From the second of them on, both know what is granted.
    """
    registry = registry_in(tmp_path)
    registry.admit(Request(kind="sweep"))
    ranks = run_ranks(ask_on_ranks, world_size=2, folder=str(tmp_path), timeout_s=100.0)
    for rank in ranks:
        (refusal, _), (trained, _) = rank.value
        assert (refusal, trained) == ("cluster_limit", "trained")
        assert set(rank.value[1][1][1]) == {0.8}
    assert ("train", True) in ranks[0].value[1][1][0]
    assert [lease.kind for lease in registry.leases()] == ["sweep"]
