"""Records the fingerprints of a run, or verifies them against those of an earlier one."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from lightning.pytorch.utilities import rank_zero_warn

from lightning_elche.callbacks.replay_env import run_env
from lightning_elche.callbacks.replay_expected import agreed_record, compare_env
from lightning_elche.callbacks.replay_files import (
    Expected,
    RecordFiles,
    lanes_record,
    last_segment,
    next_segment,
    schedule_folder,
)
from lightning_elche.callbacks.replay_probe import ReplayProbe, divergence_between
from lightning_elche.callbacks.run_events import emit
from lightning_elche.ops.replay_tensors import replay_tensors
from lightning_elche.ops.rml_torch import named_lanes
from lightning_elche.partition.errors import ReplayDivergence
from lightning_elche.partition.fs import LocalFs
from lightning_elche.partition.replay import Replay, ReplayConfig, ReplayFingerprint
from lightning_elche.partition.replay_file import ReplaySegment
from lightning_elche.partition.replay_lanes import (
    LanesPoint,
    LanesRecord,
    NamedLanes,
    fingerprint_of,
)
from lightning_elche.partition.replay_place import LocatedDivergence, other_rows
from lightning_elche.strategies.running import RunningStrategy

if TYPE_CHECKING:
    from lightning.pytorch import Trainer
    from torch import Tensor

    from lightning_elche.exceptions import ScheduleDiverged

__all__ = ["PartitionReplay"]


class PartitionReplay:
    """The replay of one `fit` after the other; every rank has one.

    Order of the calls: `begin` in the hook `setup`, `start` in `on_train_start`, `point` at points
    where all ranks are aligned, `finish` in `on_train_end`, and `close` in any case. With mode
    "off" none of them does anything.

    Attributes:
        segment: Name of the present record; `None` without one.
        parent: The segment that it goes on from.
        fingerprint_ms: What the last fingerprint has cost.
        num_mismatches: Fingerprints that differed.
        on_own_divergence: Is called on a rank whose own replica is not the recorded one, before it
            is averaged with those of the others.
    """

    def __init__(self) -> None:
        self.segment: str | None = None
        self.parent: str | None = None
        self.fingerprint_ms = 0.0
        self.num_mismatches = 0
        self.on_own_divergence: Callable[[], object] = lambda: None
        self._has_warned = False
        self._replay = Replay()
        self._config = ReplayConfig()
        self._expected: Expected | None = None
        self._lanes: LanesRecord | None = None
        self._files: RecordFiles | None = None

    @property
    def is_on(self) -> bool:
        """Whether fingerprints are wanted."""
        return self._config.mode != "off"

    @property
    def recorded(self) -> tuple[ReplayFingerprint, ...]:
        """The fingerprints of this fit."""
        return self._replay.recorded

    def begin(
        self, trainer: Trainer, root: Path, config: ReplayConfig, restored_step: int | None = None
    ) -> None:
        """Read what is expected, and let the strategy record or follow its schedule.

        It may be called again, once it is known what is resumed from.

        Args:
            trainer: Has its process group, and its strategy is not set up yet.
            root: Gets `replay/`.
            config: What is wanted.
            restored_step: The step that is resumed from, `None` for a start.

        Raises:
            FileNotFoundError: If there is no expected record.
            ReplayFormatError: If it cannot be read.
        """
        self._config, self._trainer = config, trainer
        self._folder, self._restored_step = root / "replay", restored_step
        self.segment = self.parent = self._expected = self._lanes = None
        self.num_mismatches, self._has_warned = 0, False
        if not self.is_on:
            return
        last = last_segment(self._folder) if restored_step is not None else None
        # Rank 0 looks, for all: others may see a folder a moment later.
        names = (next_segment(self._folder), last)
        self.segment, self.parent = trainer.strategy.broadcast(names)
        self._env = run_env(trainer)
        if config.mode == "verify":
            self._expected = agreed_record(
                trainer, config, restored_step=restored_step, has_schedule=self._has_schedule
            )
            self._lanes = lanes_record(
                self._expected.folder, self._expected.segments, trainer.global_rank
            )
        self._prepare_schedule()

    def start(self) -> None:
        """Open the files; under ElCheStrategy watch what this rank hands in to averages.

        Raises:
            ReplayError: If the environment is not the expected one, and that is not allowed.
        """
        if not self.is_on:
            return
        trainer, rank = self._trainer, self._trainer.global_rank
        assert self.segment is not None
        strategy = trainer.strategy
        is_running = isinstance(strategy, RunningStrategy) and strategy.is_running
        if self._expected is not None:
            self._compare_env(self._expected, is_running=is_running)
        segment = ReplaySegment(
            segment=self.segment, parent=self.parent, scope=self._config.scope, env=self._env
        )
        lanes = LanesRecord(
            segment=self.segment,
            rank=rank,
            world_size=trainer.world_size,
            restored_step=self._restored_step,
            env=self._env,
        )
        self._files = RecordFiles(
            self._folder,
            segment=segment if rank == 0 else None,
            lanes=lanes,
        )
        self._replay = Replay(self._config.mode, self._expected_entries())
        if self._restored_step is not None:
            self._replay.restore(self._restored_step)
        if isinstance(strategy, RunningStrategy) and is_running:
            self._attach_probe(strategy)

    def take(self) -> list[NamedLanes]:
        """Return the lanes of the present state. Cost: O(bytes), see `benchmarks/replay.py`."""
        return named_lanes(self.tensors())

    def point(
        self, *, step: int, sync_index: int, taken: Sequence[NamedLanes] | None = None
    ) -> ReplayFingerprint | None:
        """Take in the present state, and return its fingerprint.

        Args:
            step: The step.
            sync_index: Number of the averaging event, 0 without one.
            taken: What `take` has returned for this state, if it was called.

        Raises:
            ReplayError: If the expected run has done something else.
        """
        if self._files is None:
            return None
        began = time.perf_counter()
        tensors = self.take() if taken is None else taken
        found = fingerprint_of(tensors, step=step, sync_index=sync_index)
        point = LanesPoint.of("after", tensors, step=step, sync_index=sync_index, value=found.value)
        self.fingerprint_ms = 1000.0 * (time.perf_counter() - began)
        try:
            self._replay.check(found)
        except ReplayDivergence as err:
            located = self._located(err, point)
            if self._should_raise(located):
                raise located from err
        self._replay.accept(found)
        self._files.append(found, point)
        return found

    def lines_since_parent(self) -> bytes:
        """Return the lines of the record since the last call, for a checkpoint to keep."""
        return b"" if self._files is None else self._files.take_lines()

    def sync(self) -> None:
        """Make the record outlast a power cut; may be called by another thread."""
        if self._files is not None:
            self._files.sync()

    def metrics(self) -> dict[str, float]:
        """Return what is logged."""
        return {
            "replay/fingerprint_ms": self.fingerprint_ms,
            "replay/fingerprints": float(len(self.recorded)),
            "replay/mismatches": float(self.num_mismatches),
        }

    def finish(self) -> None:
        """End the record.

        Raises:
            ReplayIncomplete: If the expected run went on.
        """
        is_open = self._files is not None
        self.close()
        if is_open:
            self._replay.finish()

    def close(self) -> None:
        """Close the files; `recorded` and `metrics` remain."""
        files, self._files = self._files, None
        if files is not None:
            files.close()

    def tensors(self) -> dict[str, Tensor]:
        """Return the tensors that are fingerprinted, in the order of the row space."""
        trainer = self._trainer
        strategy: Any = trainer.strategy
        is_full = self._config.scope == "full"
        # States that each rank keeps for itself say nothing of the run.
        is_full &= not getattr(strategy, "keeps_optimizer_state", False)
        return replay_tensors(
            strategy.lightning_module_state_dict(),
            trainer.optimizers if is_full else (),
            module=trainer.lightning_module,
        )

    def _compare_env(self, expected: Expected, *, is_running: bool) -> None:
        compare_env(
            self._trainer,
            expected.env if self._lanes is None else self._lanes.env,
            self._env,
            should_raise=self._config.on_env_mismatch == "raise",
        )
        if is_running and expected.schedule is None:
            rank_zero_warn(
                f"`expected` ({self._config.expected}) has no schedule of a run that began at step "
                f"{self._restored_step or 0}, so that ranks meet by the clock. They will hardly "
                "meet at the same steps again."
            )

    @property
    def _has_schedule(self) -> bool:
        return isinstance(self._trainer.strategy, RunningStrategy) and self._trainer.world_size > 1

    def _prepare_schedule(self) -> None:
        strategy = self._trainer.strategy
        assert self.segment is not None
        if not (isinstance(strategy, RunningStrategy) and self._has_schedule):
            return
        if self._expected is None:
            strategy.record_schedule(schedule_folder(self._folder, self.segment))
        elif self._expected.schedule is not None:
            goes_on = self._config.on_divergence == "warn"
            strategy.follow_schedule(
                self._expected.schedule, on_difference=self._warn_of if goes_on else None
            )

    def _expected_entries(self) -> Sequence[ReplayFingerprint]:
        """Return what this rank has to repeat.

        Ranks may differ in what each keeps for itself: optimizer states, or under DDP the
        statistics of BatchNorm.
        """
        if self._expected is None:
            return ()
        is_own = self._lanes is not None and self._lanes.rank > 0
        return self._lanes.fingerprints() if is_own and self._lanes else self._expected.entries

    def _attach_probe(self, strategy: RunningStrategy) -> None:
        assert self._files is not None
        probe = ReplayProbe(
            rank=self._trainer.global_rank,
            take=self._take_own,
            record=self._files.append_lanes,
            expected=self._lanes,
            should_raise=self._should_raise,
        )
        strategy.attach_abort_source(probe)

    def _take_own(self) -> LanesPoint:
        strategy: Any = self._trainer.strategy
        step, sync_index = strategy.global_step, strategy.run.rounds.plan.index
        return LanesPoint.of("before", self.take(), step=step, sync_index=sync_index)

    def _located(self, err: ReplayDivergence, point: LanesPoint) -> LocatedDivergence:
        rank = self._trainer.global_rank
        expected = None if self._lanes is None else self._lanes.points.get(point.key)
        if expected is None:
            return LocatedDivergence(
                err.step, err.expected, err.actual, sync_index=point.sync_index, rank=rank
            )
        found = divergence_between(expected, point, rank=rank)
        then = next((one for one in expected.tensors if one.name == found.tensor), None)
        now = self.tensors().get(found.tensor or "")
        if then is None or now is None or self._expected is None:
            return found
        bits = now.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
        rows = other_rows(LocalFs(), self._expected.root, err.step, then, bits)
        return replace(found, rows=rows)

    def _should_raise(self, found: LocatedDivergence) -> bool:
        """Take in a divergence, and return whether the run ends."""
        self.num_mismatches += 1
        emit(
            "replay_divergence",
            step=found.step,
            sync_index=found.sync_index,
            rank=found.rank,
            moment=found.moment,
            tensor=found.tensor,
            rows=found.rows,
        )
        if self._config.on_divergence != "warn":
            if found.moment == "before" and self._config.on_divergence == "quarantine":
                self.on_own_divergence()  # after the average, all ranks have it
            return True
        self._warn_of(found)
        return False

    def _warn_of(self, found: LocatedDivergence | ScheduleDiverged) -> None:
        if not self._has_warned:  # the rest follows from it
            self._has_warned = True
            warnings.warn(str(found), stacklevel=2)
