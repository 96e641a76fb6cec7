"""Runs that start when the registry lets them."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from lightning.pytorch import Callback
from torch.utils.data import DataLoader

from lightning_elche.callbacks.admission import Admission, is_enforced
from lightning_elche.callbacks.run_events import subscribe
from lightning_elche.coordination.registry.database import Database
from lightning_elche.coordination.registry.lease_keeper import LEASE_VARIABLE
from lightning_elche.coordination.registry.limits import LimitsConfig
from lightning_elche.coordination.registry.registry import Registry
from lightning_elche.coordination.registry.request import Request
from lightning_elche.exceptions import AdmissionDenied
from tests.callbacks.admitted import SMALL, Admitted, registry_in
from tests.ranks import Numbered, Recorder, fit, make_trainer


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
