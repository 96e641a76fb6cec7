"""Which registry a configuration means."""

from __future__ import annotations

from pathlib import Path

import pytest

from lightning_elche.coordination.config import CoordinationConfig
from lightning_elche.coordination.registry.client import RemoteRegistry
from lightning_elche.coordination.registry.config import RegistryConfig
from lightning_elche.coordination.registry.limits import LimitsConfig
from lightning_elche.coordination.registry.place import local_registry, open_registry
from lightning_elche.coordination.registry.registry import Registry
from lightning_elche.coordination.registry.request import Request
from lightning_elche.coordination.schedule.schedule import ScheduleConfig

ALL_DAY = ("00:00", "23:59", "UTC")


def config_of(folder: Path, **sections: object) -> CoordinationConfig:
    return CoordinationConfig(registry=RegistryConfig(folder=str(folder)), **sections)


def test_folder_has_the_registry_with_these_limits(tmp_path: Path) -> None:
    """In a file of its own, made when it is opened."""
    registry = open_registry(config_of(tmp_path, limits=LimitsConfig(per_host={"train": 0})))
    assert isinstance(registry, Registry)
    assert registry.why(Request(kind="train")).code == "host_limit"
    assert (tmp_path / "registry.db").exists()


def test_address_goes_before_the_folder(tmp_path: Path) -> None:
    """But for who serves it."""
    place = RegistryConfig(folder=str(tmp_path), url="http://head:9473", token="s3cret")
    config = CoordinationConfig(registry=place)
    assert isinstance(open_registry(config), RemoteRegistry)
    assert isinstance(local_registry(config), Registry)


def test_configuration_without_any_place_is_refused() -> None:
    """It was not completed from the environment."""
    with pytest.raises(ValueError, match=r"`folder` must be a path, got None"):
        open_registry(CoordinationConfig())


@pytest.mark.parametrize(
    ("policy", "expected_s", "code"),
    [("wait", 86400.0, "peak_hours"), ("warn", 86400.0, "admitted"), ("throttle", 1.0, "admitted")],
)
def test_peak_hours_keep_a_start_back_only_where_it_is_to_wait(
    tmp_path: Path, policy: str, expected_s: float, code: str
) -> None:
    """A task of a whole day reaches into any."""
    schedule = ScheduleConfig(peak=ALL_DAY, peak_policy=policy)
    registry = open_registry(config_of(tmp_path, schedule=schedule))
    decision = registry.why(Request(kind="train", expected_s=expected_s))
    assert decision.code == code
    assert (0.0 < decision.retry_after_s <= 86400.0) is (code == "peak_hours")
