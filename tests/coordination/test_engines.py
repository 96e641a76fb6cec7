"""Tests of what finds out who started a run."""

from __future__ import annotations

from types import ModuleType

import pytest

from lightning_elche.coordination.engines import Engine, find_engines, grace_warnings


def ray(*, is_initialized: bool) -> dict[str, ModuleType]:
    """Return modules of which one is like Ray."""
    module = ModuleType("ray")
    vars(module)["is_initialized"] = lambda: is_initialized
    return {"ray": module}


@pytest.mark.parametrize(
    ("environment", "modules", "found"),
    [
        ({}, {}, []),
        ({"SLURM_JOB_ID": ""}, {}, []),
        ({"SLURM_JOB_ID": "7"}, {}, ["SLURM"]),
        ({"KUBERNETES_SERVICE_HOST": "10.0.0.1"}, {}, ["KUBERNETES"]),
        ({"TORCHELASTIC_RUN_ID": "none"}, {}, ["TORCHRUN"]),
        ({"NOTIFY_SOCKET": "/run/notify"}, {}, ["SYSTEMD"]),
        ({}, ray(is_initialized=True), ["RAY"]),
        ({}, ray(is_initialized=False), []),
        ({}, {"ray": ModuleType("ray")}, []),
        ({"SLURM_JOB_ID": "7", "TORCHELASTIC_RUN_ID": "7"}, {}, ["SLURM", "TORCHRUN"]),
    ],
)
def test_engine_is_found_by_what_it_sets(
    environment: dict[str, str], modules: dict[str, ModuleType], found: list[str]
) -> None:
    """Ray counts once it is initialised, and not for being installed."""
    assert sorted(one.name for one in find_engines(environment, modules)) == found


def test_engine_that_places_runs_is_told_from_others() -> None:
    """Torchrun and systemd start what they are told to, where they are."""
    placing = [engine.name for engine in Engine if engine.places_runs]
    assert placing == ["SLURM", "KUBERNETES", "RAY"]


def test_grace_beyond_that_of_the_engine_is_told() -> None:
    """It would kill the run in the midst of its last checkpoint."""
    engines = frozenset({Engine.SLURM, Engine.RAY})
    assert grace_warnings(engines, 25.0) == ()
    assert grace_warnings(engines, 30.0) == (
        "`grace_s` must be < 30, the seconds that SLURM waits by default between SIGTERM and "
        "SIGKILL, got 30. Lower it, or raise `KillWait` in slurm.conf.",
    )
