"""What keeps a run well and lets runs share a machine; standard library, psutil and filelock."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lightning_elche.lazy import lazy_names

if TYPE_CHECKING:
    from lightning_elche.coordination.bandwidth.budget import BandwidthBudget, BandwidthConfig
    from lightning_elche.coordination.breaker import Breaker, BreakerConfig, BreakerState
    from lightning_elche.coordination.calls.publisher import Publisher, PublishEvent
    from lightning_elche.coordination.calls.task import Task, TaskTimeout, Token
    from lightning_elche.coordination.calls.worker import DeadlineWorker
    from lightning_elche.coordination.component import Component
    from lightning_elche.coordination.config import CoordinationConfig
    from lightning_elche.coordination.export import ExportConfig
    from lightning_elche.coordination.faults import FaultConfig
    from lightning_elche.coordination.health import Health
    from lightning_elche.coordination.host.governor import Governor, GovernorConfig
    from lightning_elche.coordination.host.monitor import HostMonitor
    from lightning_elche.coordination.host.targets import TargetConfig
    from lightning_elche.coordination.host.thresholds import ThresholdConfig
    from lightning_elche.coordination.host.trend import Trend
    from lightning_elche.coordination.lifecycle import Lifecycle, RunState
    from lightning_elche.coordination.registry.client import RemoteRegistry
    from lightning_elche.coordination.registry.config import RegistryConfig
    from lightning_elche.coordination.registry.coordinated_task import CoordinatedTask
    from lightning_elche.coordination.registry.database import Database
    from lightning_elche.coordination.registry.limits import LimitsConfig
    from lightning_elche.coordination.registry.place import open_registry
    from lightning_elche.coordination.registry.registry import Registry
    from lightning_elche.coordination.registry.request import Decision, Lease, Request
    from lightning_elche.coordination.router import EventRouter
    from lightning_elche.coordination.run_lock import RunLock
    from lightning_elche.coordination.schedule.durations import DurationModel
    from lightning_elche.coordination.schedule.peak import PeakHours
    from lightning_elche.coordination.schedule.schedule import ScheduleConfig
    from lightning_elche.coordination.stopping.run_control import RunControl
    from lightning_elche.coordination.stopping.shutdown import ShutdownPlan
    from lightning_elche.coordination.stopping.stop import StopConfig

__all__ = [
    "BandwidthBudget",
    "BandwidthConfig",
    "Breaker",
    "BreakerConfig",
    "BreakerState",
    "Component",
    "CoordinatedTask",
    "CoordinationConfig",
    "Database",
    "DeadlineWorker",
    "Decision",
    "DurationModel",
    "EventRouter",
    "ExportConfig",
    "FaultConfig",
    "Governor",
    "GovernorConfig",
    "Health",
    "HostMonitor",
    "Lease",
    "Lifecycle",
    "LimitsConfig",
    "PeakHours",
    "PublishEvent",
    "Publisher",
    "Registry",
    "RegistryConfig",
    "RemoteRegistry",
    "Request",
    "RunControl",
    "RunLock",
    "RunState",
    "ScheduleConfig",
    "ShutdownPlan",
    "StopConfig",
    "TargetConfig",
    "Task",
    "TaskTimeout",
    "ThresholdConfig",
    "Token",
    "Trend",
    "open_registry",
]

_MODULES = {
    "BandwidthBudget": "bandwidth.budget",
    "BandwidthConfig": "bandwidth.budget",
    "Breaker": "breaker",
    "BreakerConfig": "breaker",
    "BreakerState": "breaker",
    "Component": "component",
    "CoordinatedTask": "registry.coordinated_task",
    "CoordinationConfig": "config",
    "Database": "registry.database",
    "DeadlineWorker": "calls.worker",
    "Decision": "registry.request",
    "DurationModel": "schedule.durations",
    "EventRouter": "router",
    "ExportConfig": "export",
    "FaultConfig": "faults",
    "Governor": "host.governor",
    "GovernorConfig": "host.governor",
    "Health": "health",
    "HostMonitor": "host.monitor",
    "Lease": "registry.request",
    "Lifecycle": "lifecycle",
    "LimitsConfig": "registry.limits",
    "PeakHours": "schedule.peak",
    "PublishEvent": "calls.publisher",
    "Publisher": "calls.publisher",
    "Registry": "registry.registry",
    "RegistryConfig": "registry.config",
    "RemoteRegistry": "registry.client",
    "Request": "registry.request",
    "RunControl": "stopping.run_control",
    "RunLock": "run_lock",
    "RunState": "lifecycle",
    "ScheduleConfig": "schedule.schedule",
    "ShutdownPlan": "stopping.shutdown",
    "StopConfig": "stopping.stop",
    "TargetConfig": "host.targets",
    "Task": "calls.task",
    "TaskTimeout": "calls.task",
    "ThresholdConfig": "host.thresholds",
    "Token": "calls.task",
    "Trend": "host.trend",
    "open_registry": "registry.place",
}

__getattr__, __dir__ = lazy_names(__name__, _MODULES)
