"""A folder of checkpoints, of which none is lost and none that is wrong is used."""

from __future__ import annotations

import contextlib
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from lightning_elche.partition.errors import CheckpointError, WriteFailed
from lightning_elche.partition.fs import Host
from lightning_elche.partition.gc import GcReport, collect_garbage, move_to_trash, sweep
from lightning_elche.partition.manifest import Manifest
from lightning_elche.partition.read_checkpoint import Checkpoint, read_checkpoint, read_manifest
from lightning_elche.partition.read_root import Choice, choose_checkpoint
from lightning_elche.partition.retention import Entry, decide_fates, entry_of
from lightning_elche.partition.store_config import StoreConfig
from lightning_elche.partition.store_names import checkpoint_name, parse_checkpoint_name
from lightning_elche.partition.store_placing import Placing, typed_errors
from lightning_elche.partition.store_seal import MakeSeal, Run
from lightning_elche.partition.store_snapshot import Snapshot

__all__ = ["CheckpointStore", "Saved"]


@dataclass(frozen=True, kw_only=True)
class Saved:
    """A checkpoint that is in its place.

    Attributes:
        path: Where.
        manifest: What it says of itself.
        is_new: Whether this save has written it; an equal one may have been there.
        evicted: Names of older ones that were removed for it.
    """

    path: Path
    manifest: Manifest
    is_new: bool
    evicted: tuple[str, ...] = ()


class CheckpointStore:
    """Saves and reads the checkpoints of a root; one thread at a time.

    Args:
        root: The folder, which the first save makes.
        host: The file system, the clock and this process.
        config: How they are written, and which are kept.
        run: Calls a function for each of some items, as `map` does; that of a pool of threads
            makes saving use several cores.

    Example:
        >>> from tempfile import mkdtemp
        >>> import numpy as np
        >>> from lightning_elche.partition.fs import this_host
        >>> from lightning_elche.partition.image import HostTensor
        >>> from lightning_elche.partition.tree import encode_tree
        >>> store = CheckpointStore(Path(mkdtemp()), host=this_host())
        >>> weight = HostTensor.of("weight", np.ones(3, dtype=np.float32))
        >>> tree = encode_tree({"epoch": 1}).data
        >>> state = Snapshot(
        ...     step=7, groups={"model": [weight]}, tree=tree, segment="a", run_id="r"
        ... )
        >>> saved = store.save(state)
        >>> saved.path.name, store.load(saved.path).groups["model"]["weight"].array().tolist()
        ('step-00000007', [1.0, 1.0, 1.0])
    """

    def __init__(
        self, root: Path, *, host: Host, config: StoreConfig | None = None, run: Run = map
    ) -> None:
        self.root = root
        self.config = config or StoreConfig()
        self._host = host
        self._placing = Placing(root, host=host, config=self.config, run=run)
        self._entries: dict[str, Entry] = {}  # by name; manifests do not change
        self._last_sequence = 0
        self._has_root = False

    @property
    def placing(self) -> Placing:
        """What puts checkpoints where they belong."""
        return self._placing

    def save(self, snapshot: Snapshot, *, make_seal: MakeSeal | None = None) -> Saved:
        """Write a checkpoint, and remove those that are then too many.

        A save that failed may be tried again: nothing that was there has changed.

        Args:
            snapshot: The state.
            make_seal: Returns what writes it, by default this process alone.

        Raises:
            WriteFailed: If it could not be written, or an old one not be removed.
            DurabilityUncertain: If it is in its place, but may not survive a power cut.
            DivergentWriters: If another one of this step and label exists; this one is in
                `quarantine/` then.
        """
        path = self.root / checkpoint_name(snapshot.step, snapshot.label)
        with typed_errors(path):
            self._make_root()
            sequence = self._next_sequence()
            manifest, is_new = self._placing.place(
                path, snapshot, sequence=sequence, make_seal=make_seal
            )
            self._entries[path.name] = entry_of(manifest, self.config.monitor)
            evicted = self._retain()
        return Saved(path=path, manifest=manifest, is_new=is_new, evicted=evicted)

    def quarantine(
        self,
        snapshot: Snapshot,
        *,
        reason: str = "diverged",
        make_seal: MakeSeal | None = None,
    ) -> Path:
        """Write a checkpoint that is never resumed from, for inspection, and return its path.

        Args:
            snapshot: The state.
            reason: First part of its name.
            make_seal: As of `save`.

        Raises:
            WriteFailed: If it could not be written.
        """
        with typed_errors(self.root):
            self._make_root()
            folder = self._placing.quarantine_folder()
            name = f"{reason}-{checkpoint_name(snapshot.step, snapshot.label)}"
            if self._host.fs.lexists(folder / name):
                name = f"{name}-{self._host.new_uuid()[:8]}"
            self._placing.place(
                folder / name, snapshot, sequence=self._next_sequence(), make_seal=make_seal
            )
            self._placing.trim_quarantine(keep=name)
        return folder / name

    def load(self, path: Path, *, groups: Collection[str] | None = None) -> Checkpoint:
        """Return a checkpoint, if all that is read of it is right.

        Args:
            path: Of the checkpoint.
            groups: The groups of tensors to read, by default all.

        Raises:
            NoCheckpointFound: If there is none.
            CheckpointError: If it must not be read; a subclass says why.
        """
        return read_checkpoint(self._host.fs, path, groups=groups)

    def groups_of(self, path: Path) -> tuple[str, ...]:
        """Return the names of the groups of a checkpoint.

        Raises:
            NoCheckpointFound: If there is none.
            CheckpointError: If it must not be read; a subclass says why.
        """
        return tuple(read_manifest(self._host.fs, path).groups)

    def choose(self) -> Choice:
        """Return the newest checkpoint that can be resumed from, verified in full.

        Raises:
            NoCheckpointFound: If there are none at all.
            NoValidCheckpoint: If there are some, and none is good.
        """
        return choose_checkpoint(self._host.fs, self.root)

    def rewind(self, step: int) -> tuple[str, ...]:
        """Move checkpoints of later steps to `archive/`, and return their names.

        Args:
            step: That is resumed from; the run will come to later ones again.

        Raises:
            CheckpointError: If there are later ones and `on_rewind` is "raise".
            WriteFailed: If one could not be moved.
        """
        with typed_errors(self.root):
            later = [name for name in self._names() if _step_of(name) > step]
            if later and self.config.on_rewind == "raise":
                raise CheckpointError(
                    f"`on_rewind` is 'raise', and checkpoints after step {step} exist in "
                    f"{self.root}: {', '.join(later)}. Set it to 'archive', or resume from the "
                    "newest one."
                )
            self._next_sequence()  # later numbers stay higher than those of the archive
            for name in later:
                self._placing.archive(name)
        return tuple(later)

    def collect_garbage(self, *, should_apply: bool = False) -> GcReport:
        """Say what dead processes have left behind, and remove it if that is asked for."""
        return collect_garbage(self._host, self.root, should_apply=should_apply)

    def preflight(self, num_bytes: int) -> None:
        """Check that a checkpoint of `num_bytes` can be written, before there is one to lose.

        Raises:
            WriteFailed: If there is no space for two, or a small one cannot be written.
        """
        temp = self.root / self._placing.temp_name(0)
        with typed_errors(self.root):
            self._make_root()
            free = self._host.fs.free_bytes(self.root)
            if free < 2 * num_bytes:
                reason = f"two checkpoints need {2 * num_bytes} bytes, {free} are free"
                raise WriteFailed(str(self.root), reason)
            self._placing.publisher.probe(temp)

    def _make_root(self) -> None:
        if not (self._has_root and self._host.fs.is_folder(self.root)):
            self._placing.publisher.make_root(self.root)
            self._has_root = True

    def _names(self) -> list[str]:
        return [name for name in self._host.fs.list_names(self.root) if _step_of(name) >= 0]

    def _next_sequence(self) -> int:
        """Return a number above all that were used, also by other processes."""
        for name in self._names():
            if name not in self._entries:
                with contextlib.suppress(CheckpointError):  # the next one to resume from is another
                    manifest = read_manifest(self._host.fs, self.root / name)
                    self._entries[name] = entry_of(manifest, self.config.monitor)
        used = [entry.sequence for entry in self._entries.values()]
        self._last_sequence = max([self._last_sequence, *used])
        return self._last_sequence + 1

    def _retain(self) -> tuple[str, ...]:
        present = set(self._names())
        self._entries = {name: one for name, one in self._entries.items() if name in present}
        fates = decide_fates(self._entries.values(), self.config)
        removed = tuple(fate.name for fate in fates if fate.is_removed)
        for name in removed:
            with contextlib.suppress(FileNotFoundError):  # another process was first
                move_to_trash(self._host, self.root, name, self._placing.publisher)
            del self._entries[name]
        sweep(self._host, self.root)
        return removed


def _step_of(name: str) -> int:
    """Return the step that a name tells, -1 if it is not that of a checkpoint."""
    parsed = parse_checkpoint_name(name)
    return -1 if parsed is None else parsed.step
