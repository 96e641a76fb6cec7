"""Reads and writes partitioned checkpoints where Lightning reads and writes its own."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from lightning.pytorch.plugins import AsyncCheckpointIO, CheckpointIO, TorchCheckpointIO
from typing_extensions import override

from lightning_elche.distributed.rank_executor import RankExecutor
from lightning_elche.ops.arena import Arena
from lightning_elche.ops.kept_states import groups_for_rank, states_for_rank
from lightning_elche.ops.tensor_state import SplitState, join_state, split_state
from lightning_elche.partition.checkpoint_errors import Corrupt, NoCheckpointFound, WriteFailed
from lightning_elche.partition.errors import InvalidConfig, PartitionError
from lightning_elche.partition.fs import this_host
from lightning_elche.partition.manifest import Manifest
from lightning_elche.partition.plan import PartitionPlan
from lightning_elche.partition.read_root import Choice
from lightning_elche.partition.store import CheckpointStore, Saved
from lightning_elche.partition.store_config import StoreConfig
from lightning_elche.partition.store_names import CheckpointName, parse_checkpoint_name
from lightning_elche.partition.store_ranks import RankSeal
from lightning_elche.partition.store_seal import Run
from lightning_elche.partition.store_shared import save_together, set_aside_together
from lightning_elche.partition.store_snapshot import Snapshot
from lightning_elche.partition.store_workers import (
    check_workers,
    plan_for_workers,
    send_partitions,
)
from lightning_elche.partition.worker import PartitionConfig
from lightning_elche.strategies.checkpoint_ranks import SharedSave

__all__ = ["Loaded", "PartitionCheckpointIO", "SaveOptions"]

Chosen = tuple[Path, tuple[tuple[str, str], ...]]  # a checkpoint, and those rejected


@dataclass(frozen=True, kw_only=True)
class Loaded:
    """A checkpoint that was read.

    Attributes:
        path: Where it lies.
        manifest: What it says of itself.
        rejections: Newer ones of the root that must not be read, with the reason.
        names: Of all its tensors, with their groups.
    """

    path: Path
    manifest: Manifest
    rejections: tuple[tuple[str, str], ...]
    names: frozenset[str]


@dataclass(frozen=True, kw_only=True)
class SaveOptions:
    """What a caller wants of a save, passed as the `storage_options` of Lightning.

    Attributes:
        submit: Takes the function that writes the checkpoint; called with a copy of the state, so
            that it may be run later. By default it is run at once.
        parameters: Names of the parameters of each optimizer, in its order.
        details: Other fields of the `Snapshot`.
        is_rehearsal: Only check that the state can be stored, and that there is room.
        extra_bytes: What the state will grow by, for a rehearsal.
        is_quarantined: Write the state to `quarantine/`, from where nothing is resumed.
        shared: How ranks save together, each of which calls the plugin then.
    """

    submit: Callable[[Callable[[], Saved]], object] | None = None
    parameters: Sequence[Sequence[str]] = ()
    details: Mapping[str, Any] = field(default_factory=dict)
    is_rehearsal: bool = False
    extra_bytes: int = 0
    is_quarantined: bool = False
    shared: SharedSave | None = None


class PartitionCheckpointIO(CheckpointIO):
    """Reads and writes folders called `step-*`, and leaves all other paths to another plugin.

    A folder that holds such folders can be read, too: it stands for the newest of them that is
    right.

    Args:
        inner: Reads and writes other paths, such as `*.ckpt`. Default: what Lightning uses.
        partitions: How a state is split, and on how many threads it is written.
        store: How checkpoints are written, and which are kept.

    Attributes:
        last_loaded: What was read last.

    Example:
        >>> from lightning.pytorch import Trainer
        >>> from lightning_elche import PartitionCheckpointIO
        >>> trainer = Trainer(plugins=[PartitionCheckpointIO()], logger=False)
    """

    def __init__(
        self,
        inner: CheckpointIO | None = None,
        *,
        partitions: PartitionConfig | None = None,
        store: StoreConfig | None = None,
    ) -> None:
        if isinstance(inner, AsyncCheckpointIO):
            raise InvalidConfig(
                "`inner` must not be an AsyncCheckpointIO: it deletes the last checkpoint before "
                "the next one is complete. Leave it out; checkpoints are written in the background "
                "all the same."
            )
        self.inner = inner or TorchCheckpointIO()
        self.partitions = partitions or PartitionConfig()
        self.store = store or StoreConfig()
        self.last_loaded: Loaded | None = None
        self._agree: Callable[[Any], Any] = _as_it_is
        self._place = (0, 1)  # rank and number of ranks
        self._arena = Arena()
        self._stores: dict[Path, CheckpointStore] = {}
        self._pool: ThreadPoolExecutor | None = None
        self._run_id = uuid.uuid4().hex
        check_workers(self.partitions)

    def agree_by(
        self, broadcast: Callable[[Any], Any], *, rank: int = 0, world_size: int = 1
    ) -> None:
        """Let rank 0 choose the checkpoint of a root.

        Args:
            broadcast: Returns what rank 0 called it with; every rank calls it.
            rank: This rank.
            world_size: Number of ranks.
        """
        self._agree = broadcast
        self._place = (rank, world_size)

    def store_at(self, root: Path) -> CheckpointStore:
        """Return the store of a root."""
        root = root.absolute()
        if root not in self._stores:
            self._stores[root] = CheckpointStore(
                root, host=this_host(), config=self.store, run=self._run
            )
        return self._stores[root]

    @override
    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any | None = None
    ) -> None:
        """Save a state; in the place where it belongs it is complete or not at all.

        Args:
            checkpoint: The state.
            path: A folder called `step-` and the step, perhaps with a label; or any other, for
                the inner plugin.
            storage_options: `SaveOptions`, or those of the inner plugin.

        Raises:
            CheckpointError: If the state cannot be stored; a subclass says why.
        """
        name = _name_of(path)
        if name is None and not isinstance(storage_options, SaveOptions):
            self.inner.save_checkpoint(checkpoint, path, storage_options)
            return
        options = storage_options or SaveOptions()
        if name is None or name.step != checkpoint["global_step"]:
            raise ValueError(
                f"`path` must end in the step of the state, as in 'step-{42:08d}', got {path!r} "
                f"for step {checkpoint['global_step']}."
            )
        store, shared = self.store_at(Path(path).parent), options.shared
        split = None if shared is None else shared.split(checkpoint, options.parameters)
        if shared is not None and split is not None:
            self._save_together(store, split, name, options, shared.executor)
        elif shared is None or shared.executor.rank == 0:
            split = split_state(checkpoint, parameters=options.parameters)
            self._save_alone(store, split, name, options)

    def _save_alone(
        self, store: CheckpointStore, split: SplitState, name: CheckpointName, options: SaveOptions
    ) -> None:
        if options.is_rehearsal:
            self._arena.put(split.groups)
            store.preflight(split.nbytes + options.extra_bytes)
            return
        snapshot = self._snapshot(split, name, options.details)
        if self.partitions.plan is not None:  # if it does not fit, that is said at once
            snapshot = self._planned(snapshot, 1)
            snapshot.plan.validate(snapshot.row_space().num_rows)
        self._arena.load(split.groups)
        if options.is_quarantined:
            store.quarantine(self._planned(snapshot, 1))
        elif options.submit is None:
            self._write(store, snapshot)
        else:
            options.submit(lambda: self._write(store, snapshot))

    def _write(self, store: CheckpointStore, snapshot: Snapshot) -> Saved:
        """Save a snapshot, once workers elsewhere have stored their rows of it."""
        planned = self._planned(snapshot, 1)
        if self.partitions.workers or not isinstance(self.partitions.executor, str):
            try:
                send_partitions(planned, self.partitions)
            except PartitionError as err:
                raise WriteFailed(str(store.root), str(err)) from err
        return store.save(planned)

    def _save_together(
        self,
        store: CheckpointStore,
        split: SplitState,
        name: CheckpointName,
        options: SaveOptions,
        executor: RankExecutor,
    ) -> None:
        details = {**options.details, "num_hosts": executor.num_hosts}
        snapshot = self._planned(self._snapshot(split, name, details), executor.world_size)
        is_sharded = store.placing.is_sharded(snapshot)
        seal = RankSeal(snapshot, is_sharded=is_sharded, peers=executor, run=self._run)
        self._arena.load(split.groups, seal.own_ranges())
        if options.is_rehearsal and executor.rank == 0:
            store.preflight(split.nbytes + options.extra_bytes)
        if options.is_rehearsal:
            return
        if options.is_quarantined:
            set_aside_together(store, seal)
        elif options.submit is None:
            save_together(store, seal)
        else:
            options.submit(lambda: save_together(store, seal))

    @override
    def load_checkpoint(
        self, path: str | Path, map_location: Any | None = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        """Return a state, on the CPU; all of it is verified first.

        Args:
            path: A checkpoint, or a folder of some; or any other, for the inner plugin.
            map_location: For the inner plugin.
            weights_only: For the inner plugin.

        Raises:
            CheckpointError: If there is none, or it must not be read; a subclass says why.
        """
        choice = self._agree(self._choose(Path(path)))
        if isinstance(choice, PartitionError):
            raise choice
        if choice is None:
            if weights_only is None:
                return self.inner.load_checkpoint(path, map_location)
            return self.inner.load_checkpoint(path, map_location, weights_only)
        chosen, rejections = choice
        rank, world_size = self._place
        store = self.store_at(chosen.parent)
        wanted = groups_for_rank(store.groups_of(chosen), rank=rank, world_size=world_size)
        read = store.load(chosen, groups=wanted)
        try:
            own = states_for_rank(read.tree, read.groups, rank=rank, world_size=world_size)
            state = join_state(*own)
        except ValueError as err:
            raise Corrupt(str(chosen), str(err)) from err
        names = frozenset(f"{group}/{name}" for group, own in read.groups.items() for name in own)
        self.last_loaded = Loaded(
            path=chosen, manifest=read.manifest, rejections=rejections, names=names
        )
        return state

    @override
    def remove_checkpoint(self, path: str | Path) -> None:
        """Remove a file of the inner plugin; folders called `step-*` are removed by their store."""
        if _name_of(path) is not None:
            raise ValueError(
                f"`path` must not be a partitioned checkpoint, got {str(path)!r}: `max_retained` "
                "says which are kept."
            )
        self.inner.remove_checkpoint(path)

    @override
    def teardown(self) -> None:
        """End the threads."""
        self.inner.teardown()
        self._stores.clear()
        if self._pool is not None:
            self._pool.shutdown()
            self._pool = None

    def _threads(self) -> ThreadPoolExecutor:
        if self._pool is None:
            count = self.partitions.num_threads
            self._pool = ThreadPoolExecutor(count, thread_name_prefix="elche-partition")
        return self._pool

    @property
    def _run(self) -> Run:
        return map if self.partitions.executor == "serial" else self._threads().map

    def _snapshot(
        self, split: SplitState, name: CheckpointName, details: Mapping[str, Any]
    ) -> Snapshot:
        """Return a snapshot, in memory that nothing was copied to yet."""
        known = {"segment": self._run_id, "run_id": self._run_id, **details}
        return Snapshot(
            step=name.step,
            label=name.label,
            groups=self._arena.prepare(split.groups),
            tree=split.tree,
            dropped=split.dropped,
            **known,
        )

    def _planned(self, snapshot: Snapshot, count: int) -> Snapshot:
        """Return a snapshot in `count` parts, unless the options say otherwise."""
        options, plan = self.partitions, self.partitions.plan
        if plan is None:
            row_bytes = snapshot.row_space().row_bytes
            count = options.count or max(count, len(options.workers))
            plan = PartitionPlan.balanced(row_bytes, count)
            if options.workers:
                plan = plan_for_workers(plan, options.workers)
        return replace(snapshot, plan=plan)

    def _choose(self, path: Path) -> Chosen | PartitionError | None:
        """Return the checkpoint that `path` means, `None` if it is one for the inner plugin."""
        if _name_of(path) is not None:
            return path.absolute(), ()
        if path.is_file() or not path.is_dir():
            return None
        try:
            choice: Choice = self.store_at(path).choose()
        except NoCheckpointFound:
            return None
        except PartitionError as err:
            return err
        return choice.path, choice.rejections


def _name_of(path: str | Path) -> CheckpointName | None:
    return parse_checkpoint_name(Path(path).name)


def _as_it_is(value: Any) -> Any:  # noqa: ANN401  # of the type that it has
    return value
