"""Runs that start when the registry lets them."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from lightning.pytorch import Callback
from lightning.pytorch.strategies import DDPStrategy
from torch.distributed import HashStore
from torch.utils.data import DataLoader

from lightning_elche import CadenceConfig, ElCheStrategy
from lightning_elche.callbacks.admission import Admission, is_enforced, link_of
from lightning_elche.callbacks.coordination import Coordination
from lightning_elche.callbacks.host_grant import GrantLink
from lightning_elche.callbacks.run_events import subscribe
from lightning_elche.coordination.config import CoordinationConfig
from lightning_elche.coordination.host.claim import Claim
from lightning_elche.coordination.host.governor import GovernorConfig
from lightning_elche.coordination.registry.config import RegistryConfig
from lightning_elche.coordination.registry.database import Database
from lightning_elche.coordination.registry.lease_keeper import LEASE_VARIABLE
from lightning_elche.coordination.registry.limits import LimitsConfig
from lightning_elche.coordination.registry.registry import Registry
from lightning_elche.coordination.registry.request import Request
from lightning_elche.distributed.control_store import ControlStore
from lightning_elche.exceptions import AdmissionDenied
from lightning_elche.testing import run_ranks
from tests.coordination.calls import eventually
from tests.coordination.registered import ANY_RATE
from tests.ranks import Numbered, Recorder, fit, make_trainer

SMALL: dict[str, Any] = {"size": 8, "val_size": 4, "delays_ms": (0.0,), "strategy": "auto"}


def registry_in(folder: str | Path) -> Registry:
    return Registry(Database(Path(folder) / "registry.db"), limits=LimitsConfig(**ANY_RATE))


class Admitted(Callback):
    """Hands its hooks on, and looks at the leases while training."""

    def __init__(self, admission: Admission, registry: Registry) -> None:
        self.admission, self.registry = admission, registry
        self.seen: set[tuple[str, bool]] = set()

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        self.admission.setup(trainer, pl_module, stage)

    def on_train_batch_end(self, *_: Any) -> None:
        leases = self.registry.leases()
        self.seen |= {(lease.kind, lease.has_progressed) for lease in leases}

    def on_average_end(self, event: Any) -> None:
        self.admission.on_average_end(event)

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        self.admission.on_train_epoch_end(trainer, pl_module)

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        self.admission.on_validation_end(trainer, pl_module)

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        self.admission.on_exception(trainer, pl_module, exception)

    def teardown(self, trainer: Any, pl_module: Any, stage: str) -> None:
        self.admission.teardown(trainer, pl_module, stage)


class Raises(Recorder):
    def __init__(self, error: BaseException) -> None:
        super().__init__()
        self.error = error

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        if batch_idx == 1:
            raise self.error
        return super().training_step(batch, batch_idx)


def fit_admitted(
    registry: Any,
    *,
    admission: str = "enforce",
    on_unreachable: str = "deny",
    environment: Mapping[str, str] | None = None,
    **options: Any,
) -> Admitted:
    limits = LimitsConfig(admission=admission, on_unreachable=on_unreachable)  # type: ignore[arg-type]
    part = Admission(limits, lambda: registry, environment=environment or {})
    callback = Admitted(part, registry)
    fit(1, **{**SMALL, "callbacks": [callback], **options})
    return callback


def held_by_another(registry: Registry) -> str:
    lease = registry.admit(Request(kind="train")).lease
    assert lease is not None
    return lease.id


def test_run_holds_a_lease_while_it_trains(tmp_path: Path) -> None:
    """And has given it back in the end, as a success."""
    registry = registry_in(tmp_path)
    callback = fit_admitted(registry, max_epochs=1)
    assert callback.seen == {("train", False)}
    assert callback.admission.status()["code"] == "admitted"
    assert registry.database.read("SELECT kind, succeeded FROM duration") == [("train", 1)]


def test_refused_run_does_not_train(tmp_path: Path) -> None:
    """The error has the decision."""
    registry = registry_in(tmp_path)
    held_by_another(registry)
    with pytest.raises(AdmissionDenied, match="may not start: 1 of kind train on") as refusal:
        fit_admitted(registry)
    assert refusal.value.decision.code == "host_limit"
    assert len(registry.leases()) == 1


@pytest.mark.parametrize(
    ("error", "failures"), [(ArithmeticError(), 1), (KeyboardInterrupt(), 0), (SystemExit(), 0)]
)
def test_run_that_fails_gives_its_lease_back(
    tmp_path: Path, error: BaseException, failures: int
) -> None:
    """As a failure, unless it was stopped."""
    registry = registry_in(tmp_path)
    with contextlib.suppress(BaseException):
        fit_admitted(registry, model=Raises(error))
    kind = registry.state()["breakers"].get("kind:train", {"failures": 0})
    assert (registry.leases(), kind["failures"]) == ((), failures)


def test_five_runs_that_die_at_once_open_the_breaker(tmp_path: Path) -> None:
    """The sixth is not even tried."""
    registry = registry_in(tmp_path)
    for _ in range(5):
        with pytest.raises(ArithmeticError):
            fit_admitted(registry, model=Raises(ArithmeticError()))
    with pytest.raises(AdmissionDenied) as refusal:
        fit_admitted(registry)
    assert refusal.value.decision.code == "breaker_open"


def test_first_epoch_or_validation_shows_progress_without_averages(tmp_path: Path) -> None:
    """Not the sanity check; here the second epoch fails, and that says nothing of the start."""
    registry = registry_in(tmp_path)
    admission = Admission(LimitsConfig(admission="enforce"), lambda: registry, environment={})
    callback = Admitted(admission, registry)
    trainer = SimpleNamespace(sanity_checking=True)
    with contextlib.suppress(ArithmeticError):
        fit(1, **SMALL, max_epochs=2, callbacks=[callback, FailsLate()])
    assert registry.state()["breakers"]["kind:train"]["failures"] == 1
    registry.release(held_by_another(registry), succeeded=False)
    callback.on_validation_end(trainer, None)
    assert registry.state()["breakers"]["kind:train"]["failures"] == 2


class FailsLate(Callback):
    def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
        if trainer.current_epoch == 1:
            raise ArithmeticError


def test_run_that_need_not_ask_does_not(tmp_path: Path) -> None:
    """The registry is not even opened, and no event is told of it."""
    told: list[str] = []
    unsubscribe = subscribe(lambda kind, data: told.append(f"{kind} {data['code']}"))
    fit_admitted(registry_in(tmp_path), admission="none")
    unsubscribe()
    assert told == ["admission not_enforced"]


def test_lease_of_the_command_is_used(tmp_path: Path) -> None:
    """Its progress is told, and it is not given back."""
    registry = registry_in(tmp_path)
    lease = held_by_another(registry)
    fit_admitted(registry, environment={LEASE_VARIABLE: lease})
    assert [(one.id, one.has_progressed) for one in registry.leases()] == [(lease, True)]


class Lost(Registry):
    def admit(self, request: Request) -> Any:
        raise ConnectionError("no route to host")


@pytest.mark.parametrize("answer", ["deny", "allow"])
def test_registry_that_does_not_answer(tmp_path: Path, answer: str) -> None:
    """Lets a run start or not, as the options say."""
    lost = Lost(Database(tmp_path / "registry.db"))
    refused = None
    try:
        fit_admitted(lost, on_unreachable=answer)
    except AdmissionDenied as err:
        refused = err.decision
    assert (refused is None) == (answer == "allow")
    assert refused is None or (refused.code, refused.reason) == ("unreachable", "no route to host")


def test_registry_that_cannot_be_opened_is_an_error(tmp_path: Path) -> None:
    """As it stands, and the run does not start."""

    def open_registry() -> Registry:
        raise RuntimeError("registry.db has version 2")

    admission = Admission(LimitsConfig(admission="enforce"), open_registry, environment={})
    callback = Admitted(admission, registry_in(tmp_path))
    with pytest.raises(RuntimeError, match=r"registry.db has version 2"):
        fit(1, **SMALL, callbacks=[callback])
    assert (callback.seen, admission.decision) == (set(), None)


def test_only_training_needs_a_lease(tmp_path: Path) -> None:
    """A validation does not ask."""
    registry = registry_in(tmp_path)
    held_by_another(registry)
    admission = Admission(LimitsConfig(admission="enforce"), lambda: registry, environment={})
    trainer = make_trainer(1, strategy="auto", callbacks=[Admitted(admission, registry)])
    trainer.validate(Recorder(), DataLoader(Numbered(4)), verbose=False)
    assert admission.status()["code"] is None


@pytest.mark.parametrize(
    ("admission", "environment", "num_nodes", "enforced"),
    [
        ("none", {}, 1, False),
        ("enforce", {"SLURM_JOB_ID": "1"}, 4, True),
        ("auto", {}, 1, True),
        ("auto", {"SLURM_JOB_ID": "1"}, 1, False),
        ("auto", {"KUBERNETES_SERVICE_HOST": "10.0.0.1"}, 1, False),
        ("auto", {"TORCHELASTIC_RUN_ID": "x"}, 1, True),
        ("auto", {"TORCHELASTIC_RUN_ID": "x"}, 2, False),
    ],
)
def test_auto_leaves_it_to_what_placed_the_run(
    admission: Any, environment: dict[str, str], num_nodes: int, enforced: bool
) -> None:
    """To SLURM, Kubernetes, and torchrun on several nodes."""
    limits = LimitsConfig(admission=admission)
    assert is_enforced(limits, environment, num_nodes=num_nodes) == enforced


# Grants


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
