"""All options of `Coordination`: read from a file and the environment, written out again."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from lightning_elche.contracts.coordination_file import json_path, read_coordination
from lightning_elche.coordination.bandwidth.budget import BandwidthConfig
from lightning_elche.coordination.breaker import BreakerConfig
from lightning_elche.coordination.export import ExportConfig
from lightning_elche.coordination.faults import FaultConfig
from lightning_elche.coordination.host.governor import GovernorConfig
from lightning_elche.coordination.host.targets import TargetConfig
from lightning_elche.coordination.host.thresholds import ThresholdConfig
from lightning_elche.coordination.registry.config import RegistryConfig
from lightning_elche.coordination.registry.limits import LimitsConfig
from lightning_elche.coordination.schedule.schedule import ScheduleConfig
from lightning_elche.coordination.stopping.stop import StopConfig

__all__ = ["ENVIRONMENT", "SECRETS", "CoordinationConfig"]

VERSION = 1
# Variable to section and option. Those of the registry are read by its own config.
ENVIRONMENT = {
    "ELCHE_GRACE_S": ("stop", "grace_s"),
    "ELCHE_DEADLINE": ("schedule", "deadline"),
    "ELCHE_TARGET_UTIL_MIN": ("targets", "min_pct"),
    "ELCHE_TARGET_UTIL_MAX": ("targets", "max_pct"),
    "ELCHE_PID_KP": ("governor", "kp"),
    "ELCHE_PID_KI": ("governor", "ki"),
    "ELCHE_PID_KD": ("governor", "kd"),
}
TEXTS = frozenset({"ELCHE_DEADLINE"})
SECRETS = frozenset({"token"})  # in no file


@dataclass(frozen=True, kw_only=True)
class CoordinationConfig:
    """All options of `Coordination`, one section for each part.

    Args:
        stop: How a run ends before its time.
        faults: What happens when memory runs out or numbers are not finite.
        breaker: When starts that keep failing are refused.
        limits: When a run may start.
        thresholds: What is too little disk or memory.
        targets: How busy a machine should be.
        governor: How a run gives way to what else runs on its machine.
        bandwidth: What transfers may take of a link.
        schedule: When a run must be over.
        export: Where a run shows how it is.
        registry: Where the registry is that runs share.

    Example:
        >>> config = CoordinationConfig(stop=StopConfig(grace_s=60.0))
        >>> config.to_dict()["stop"]["grace_s"], config.faults.oom
        (60.0, 'skip')
    """

    stop: StopConfig = field(default_factory=StopConfig)
    faults: FaultConfig = field(default_factory=FaultConfig)
    breaker: BreakerConfig = field(default_factory=BreakerConfig)
    limits: LimitsConfig = field(default_factory=LimitsConfig)
    thresholds: ThresholdConfig = field(default_factory=ThresholdConfig)
    targets: TargetConfig = field(default_factory=TargetConfig)
    governor: GovernorConfig = field(default_factory=GovernorConfig)
    bandwidth: BandwidthConfig = field(default_factory=BandwidthConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    export: ExportConfig = field(default_factory=ExportConfig)
    registry: RegistryConfig = field(default_factory=RegistryConfig)

    @classmethod
    def load(
        cls, path: str | Path | None = None, env: Mapping[str, str] | None = None
    ) -> CoordinationConfig:
        """Return the options of a file; those it leaves out are of the environment, else defaults.

        Args:
            path: A file as `contracts/coordination-v1.yaml` shows one; `None` for no file.
            env: As `os.environ`; `None` for no variables.

        Raises:
            ValueError: If an option is not valid; the message names the file or the variable.
            OSError: If the file cannot be read.
        """
        env = env or {}
        written = {} if path is None else read_coordination(Path(path))
        sections = {
            section.name: _built(section, written.get(section.name, {}), env, path)
            for section in fields(cls)
        }
        sections["registry"] = sections["registry"].completed(env)
        return cls(**sections)

    def completed(self, env: Mapping[str, str]) -> CoordinationConfig:
        """Return the same with the registry's place from the environment, where it is left out."""
        return dataclasses.replace(self, registry=self.registry.completed(env))

    def to_dict(self) -> dict[str, Any]:
        """Return the options as `load` reads them from a file; secrets are left out."""
        sections = json.loads(json.dumps(dataclasses.asdict(self)))
        for section in sections.values():
            for name in SECRETS & section.keys():
                del section[name]
        return {"version": VERSION, **sections}


def _built(
    section: dataclasses.Field[Any],
    written: Mapping[str, object],
    env: Mapping[str, str],
    path: str | Path | None,
) -> Any:  # noqa: ANN401  # one of the sections
    """Return a section from what is written in the file, then the environment."""
    assert callable(section.default_factory)
    places = {name: f"{path}::{json_path((section.name, name))}" for name in written}
    values = {name: _frozen(value) for name, value in written.items()}
    for variable, (owner, name) in ENVIRONMENT.items():
        if owner == section.name and name not in values and env.get(variable):
            places[name], values[name] = variable, _parsed(variable, env[variable])
    try:
        return section.default_factory(**values)
    except (TypeError, ValueError) as err:
        named = re.search("`([a-z_]+)`", str(err))
        place = places.get(named[1]) if named else None
        raise ValueError(f"{place or next(iter(places.values()), section.name)}: {err}") from err


def _parsed(variable: str, text: str) -> str | float:
    if variable in TEXTS:
        return text
    try:
        return float(text)
    except ValueError as err:
        raise ValueError(f"{variable} must be a number, got {text!r}.") from err


def _frozen(value: object) -> object:
    return tuple(value) if isinstance(value, list) else value
