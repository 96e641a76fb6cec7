"""The numbers in a status, for a monitoring system."""

from __future__ import annotations

from collections.abc import Mapping

from lightning_elche.contracts.strictjson import number_of
from lightning_elche.control.requests import StopCause
from lightning_elche.coordination.lifecycle import RunState
from lightning_elche.coordination.monitoring.exposition import Samples

__all__ = ["dig", "part_of", "samples_of_status"]

ACTIONS = ("scale_up", "hold", "scale_down")
RATIO = 0.01  # of a percent
# Where a number is, and what it is multiplied by.
IN_HOST: Mapping[str, tuple[tuple[str, ...], float]] = {
    "cpu_utilization_ratio": (("host", "readings", "cpu_pct"), RATIO),
    "disk_full_seconds": (("host", "disk_full_s"), 1.0),
    "eta_seconds": (("run", "eta_seconds"), 1.0),
}


def samples_of_status(status: Mapping[str, object]) -> Samples:
    """Return the numbers in what `status.json` holds; what a run does not tell is left out."""
    samples: Samples = {
        "run_state": {(one.name,): float(one.name == status.get("state")) for one in RunState},
        **_stop(part_of(status, "stop")),
        **_host(part_of(status, "host")),
    }
    batches = number_of(status.get("batches"))
    if batches is not None:
        samples["steps_total"] = {("0",): batches}
    return samples


def part_of(status: Mapping[str, object], name: str) -> Mapping[str, object]:
    """Return what a part of a run tells of itself, nothing if there is no such part."""
    found = dig(status, "components", name, "status")
    return found if isinstance(found, Mapping) else {}


def dig(status: object, *path: str) -> object:
    """Return what is at the end of a path of keys, `None` if there is nothing."""
    for key in path:
        status = status.get(key) if isinstance(status, Mapping) else None
    return status


def _stop(told: Mapping[str, object]) -> Samples:
    causes = [cause.name for cause in StopCause if cause]
    wanted = told.get("stop")
    return {"stop_requested": {(name,): float(name == wanted) for name in causes}} if told else {}


def _host(told: Mapping[str, object]) -> Samples:
    found = {name: number_of(dig(told, *path)) for name, (path, _) in IN_HOST.items()}
    samples: Samples = {
        name: {(): value * IN_HOST[name][1]} for name, value in found.items() if value is not None
    }
    if number_of(dig(told, "checkpoints", "count")):
        median_s = number_of(dig(told, "checkpoints", "p50_s"))
        samples["checkpoint_seconds"] = {(): median_s or 0.0}
    return {**samples, **_governor(dig(told, "governor"))}


def _governor(told: object) -> Samples:
    action = dig(told, "action")
    if action not in ACTIONS:
        return {}
    is_in_range = bool(dig(told, "in_target_range"))
    return {
        "governor_action": {(one,): float(one == action) for one in ACTIONS},
        "in_target_range": {(str(dig(told, "signal")),): float(is_in_range)},
    }
