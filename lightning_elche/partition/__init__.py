"""Partitions of a state: plans, fingerprints, executors, replay and a store; no torch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lightning_elche.lazy import lazy_names

if TYPE_CHECKING:
    from lightning_elche.partition.clients import FsspecClient, HttpClient
    from lightning_elche.partition.columns import ColumnState
    from lightning_elche.partition.diff import diff_checkpoints
    from lightning_elche.partition.endpoint import EndpointExecutor
    from lightning_elche.partition.executor import SerialExecutor
    from lightning_elche.partition.fnv import fingerprint_columns
    from lightning_elche.partition.fs import this_host
    from lightning_elche.partition.fs_remote import RemoteFolder
    from lightning_elche.partition.gc import collect_garbage
    from lightning_elche.partition.image import HostTensor
    from lightning_elche.partition.phases import PartFiles
    from lightning_elche.partition.plan import PartitionPlan
    from lightning_elche.partition.plane import PartitionPlane
    from lightning_elche.partition.policy import CheckpointPolicy
    from lightning_elche.partition.read_checkpoint import read_checkpoint, verify_checkpoint
    from lightning_elche.partition.read_root import choose_checkpoint
    from lightning_elche.partition.replay import Replay, ReplayConfig, ReplayFingerprint
    from lightning_elche.partition.replicas import ReplicaConfig
    from lightning_elche.partition.rml import tensor_lanes
    from lightning_elche.partition.rows import RowSpace, TensorEntry, TensorRows
    from lightning_elche.partition.store import CheckpointStore
    from lightning_elche.partition.store_config import StoreConfig
    from lightning_elche.partition.store_remote import RemoteStore
    from lightning_elche.partition.store_snapshot import Snapshot
    from lightning_elche.partition.store_writer import BackgroundWriter
    from lightning_elche.partition.threaded import RoutingExecutor, ThreadedExecutor
    from lightning_elche.partition.tree import decode_tree, encode_tree
    from lightning_elche.partition.worker import PartitionConfig, PartitionWorker

__all__ = [
    "BackgroundWriter",
    "CheckpointPolicy",
    "CheckpointStore",
    "ColumnState",
    "EndpointExecutor",
    "FsspecClient",
    "HostTensor",
    "HttpClient",
    "PartFiles",
    "PartitionConfig",
    "PartitionPlan",
    "PartitionPlane",
    "PartitionWorker",
    "RemoteFolder",
    "RemoteStore",
    "Replay",
    "ReplayConfig",
    "ReplayFingerprint",
    "ReplicaConfig",
    "RoutingExecutor",
    "RowSpace",
    "SerialExecutor",
    "Snapshot",
    "StoreConfig",
    "TensorEntry",
    "TensorRows",
    "ThreadedExecutor",
    "choose_checkpoint",
    "collect_garbage",
    "decode_tree",
    "diff_checkpoints",
    "encode_tree",
    "fingerprint_columns",
    "read_checkpoint",
    "tensor_lanes",
    "this_host",
    "verify_checkpoint",
]

_MODULES = {
    "BackgroundWriter": "store_writer",
    "CheckpointPolicy": "policy",
    "CheckpointStore": "store",
    "ColumnState": "columns",
    "EndpointExecutor": "endpoint",
    "FsspecClient": "clients",
    "HostTensor": "image",
    "HttpClient": "clients",
    "PartFiles": "phases",
    "PartitionConfig": "worker",
    "PartitionPlan": "plan",
    "PartitionPlane": "plane",
    "PartitionWorker": "worker",
    "RemoteFolder": "fs_remote",
    "RemoteStore": "store_remote",
    "Replay": "replay",
    "ReplayConfig": "replay",
    "ReplayFingerprint": "replay",
    "ReplicaConfig": "replicas",
    "RoutingExecutor": "threaded",
    "RowSpace": "rows",
    "SerialExecutor": "executor",
    "Snapshot": "store_snapshot",
    "StoreConfig": "store_config",
    "TensorEntry": "rows",
    "TensorRows": "rows",
    "ThreadedExecutor": "threaded",
    "choose_checkpoint": "read_root",
    "collect_garbage": "gc",
    "decode_tree": "tree",
    "diff_checkpoints": "diff",
    "encode_tree": "tree",
    "fingerprint_columns": "fnv",
    "read_checkpoint": "read_checkpoint",
    "tensor_lanes": "rml",
    "this_host": "fs",
    "verify_checkpoint": "read_checkpoint",
}

__getattr__, __dir__ = lazy_names(__name__, _MODULES)
