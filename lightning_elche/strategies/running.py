"""A strategy that has a run: what can be asked of it, and what checkpoints hold of it."""

from __future__ import annotations

from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from typing_extensions import override

from lightning_elche.control.chunks import pool_size
from lightning_elche.coordination.stopping.run_control import RunControl
from lightning_elche.distributed.scripts import FollowedScript, RecordingScript
from lightning_elche.exceptions import RankFailed
from lightning_elche.loops.alignment import Phase
from lightning_elche.loops.checkpoint_state import RunState, resume_on_one_device
from lightning_elche.loops.solo import solo
from lightning_elche.loops.stopping import PlainSaver, Saver
from lightning_elche.strategies.guarded import GuardedStrategy

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from lightning.pytorch import Trainer

    from lightning_elche.control.epoch_metrics import EpochMetrics
    from lightning_elche.control.events import AveragingEvent
    from lightning_elche.data.epoch_progress import EpochProgress
    from lightning_elche.distributed.scripts import Script
    from lightning_elche.exceptions import ScheduleDiverged
    from lightning_elche.loops.run import Run
    from lightning_elche.loops.step_actions import StepActions
    from lightning_elche.typing import AbortSource, RecoverySource

__all__ = ["RunningStrategy"]


class RunningStrategy(GuardedStrategy):
    """Keeps the run of the present `fit`, and its state from one `fit` or process to the next.

    Args:
        **options: As of `GuardedStrategy`.

    Attributes:
        control: What this rank is asked for: to stop, to pause, to save. Any thread may ask.
        saver: Saves the last checkpoint of a run that is stopped, and those that are asked for.
    """

    _run: Run | None = None
    _actions: StepActions | None = None
    _restored: RunState | None = None
    _first_step = 0
    _pool_limit: float = 1.0  # of `limit_train_batches`
    _progress: EpochProgress | None = None  # of an epoch that one device goes on with
    _epoch_metrics: EpochMetrics | None = None
    _script: Callable[..., Script] | None = None  # of the next `fit`

    def __init__(self, **options: Any) -> None:  # noqa: ANN401  # `ElCheStrategy` spells them out
        super().__init__(**options)
        self.control = RunControl()
        self.saver: Saver = PlainSaver()

    @property
    def run(self) -> Run:
        """The present fit on several ranks."""
        if self._run is None:
            raise RuntimeError("`run` exists only during `Trainer.fit` with several devices.")
        return self._run

    @property
    def actions(self) -> StepActions:
        """What callbacks do at steps of the present fit."""
        assert self._actions is not None
        return self._actions

    @property
    def is_running(self) -> bool:
        """Whether a fit on several ranks is under way."""
        return self._run is not None and self._run.is_started

    @property
    def is_epoch_cut(self) -> bool:
        """Whether `max_steps` ends the present epoch before all its data is trained."""
        if self._run is None or not self._run.has_pool:
            return False
        dealer = self._run.dealer
        uncut = pool_size(dealer.available, limit=self._pool_limit, world_size=self.world_size)
        return dealer.total < uncut

    def is_epoch_trained(self, event: AveragingEvent) -> bool:
        """Return whether nothing is left of the present epoch's data.

        Args:
            event: The last one.
        """
        return event.is_epoch_complete and not self.is_epoch_cut

    def attach_abort_source(self, source: AbortSource) -> None:
        """Let `source` abort the present `fit` at its averaging events; every rank has one.

        Args:
            source: Asked at every step, and heard by all ranks before they average. Of several the
                largest code counts; every rank attaches them in the same order.

        Raises:
            RuntimeError: If no fit on several ranks is under way.
        """
        self.run.rounds.aborts.attach(source)

    @override
    def _explained(self, err: RuntimeError, call: str) -> RuntimeError:
        if self._run is None:
            return super()._explained(err, call)
        return self._run.explained(err, f"in `{call}`")

    def act_on_requests(self, trainer: Trainer, event: AveragingEvent) -> None:
        """Save and pause if a rank has asked for it; every rank calls this, aligned."""
        if event.checkpoint:
            self.control.request_checkpoint(False)
            self.saver.save_requested(trainer, event)
        if event.pause:
            self.run.pause.wait_out(event)

    @contextmanager
    def solo(self) -> Iterator[None]:
        """Let this rank save without the others, since they hang or are gone."""
        phase, self._alignment.phase = self._alignment.phase, Phase.FAILED
        try:
            with solo(self):
                yield
        finally:
            self._alignment.phase = phase

    # Spoiled parameters

    @property
    def has_local_gradients(self) -> bool:
        """Whether each rank steps by its own gradients, which nobody averages."""
        return self._run is not None or self._is_alone

    def attach_recovery(self, source: RecoverySource) -> None:
        """Let `source` repair the parameters of this rank at averaging events; every rank has one.

        Raises:
            RuntimeError: If no fit on several ranks is under way.
        """
        self.run.rounds.recovery.source = source

    def forget(self, batches: int) -> None:
        """Take back what this rank has learnt last, since its parameters were set back.

        The batches weigh nothing in the next average. They are not trained again.

        Args:
            batches: How many, at most those since this rank has last handed in its parameters; the
                one under way is the latest.
        """
        self.run.rounds.window.forget(batches)

    def sit_out(self) -> None:
        """Have no say in the next average, and adopt it, since the parameters are spoiled."""
        self.run.rounds.window.sits_out = True

    @property
    def is_sitting_out(self) -> bool:
        """Whether this rank has not adopted an average since it was last told to sit out."""
        return self.run.rounds.window.sits_out

    def hold_anchor(self, holds: bool) -> None:
        """Ask all ranks not to make windows longer, or no longer ask for it."""
        self.run.rounds.recovery.holds_anchor = holds

    # The schedule of another run

    def record_schedule(self, folder: str | Path) -> None:
        """Write down, in the next `fit`, which batches each rank gets and when ranks average.

        This is what depends on their speeds. All else follows from the seeds.

        Args:
            folder: Gets a file for each rank, and must be without such a file.
        """
        self._script = partial(RecordingScript, Path(folder))

    def follow_schedule(
        self,
        folder: str | Path,
        *,
        on_difference: Callable[[ScheduleDiverged], object] | None = None,
    ) -> None:
        """Deal and average in the next `fit` as in the one that was recorded, whatever the speeds.

        With the same seeds and the same numerics on each rank every average is the same, to the
        last bit.

        Args:
            folder: What `record_schedule` was given, with a file for each of as many ranks.
            on_difference: Is told if losses or distances of replicas are others than then; without
                it the run ends.
        """
        self._script = partial(FollowedScript, Path(folder), on_difference=on_difference)

    def _take_script(self) -> Script | None:
        script, self._script = self._script, None
        return script(rank=self.global_rank, world_size=self.world_size) if script else None

    @property
    def epoch_metrics(self) -> EpochMetrics | None:
        """The metrics of the last complete epoch; `None` before, and with one device."""
        return self._epoch_metrics

    def state(self) -> dict[str, object]:
        """Return what this rank knows of the run at present; JSON-serialisable."""
        return self.run.rounds.describe()

    def explain(self, last: int = 5) -> str:
        """Return why the last averaging events of this `fit` happened when they did.

        Args:
            last: How many of them, at most 100.
        """
        return "\n".join(list(self.run.explanations)[-last:])

    @property
    def global_step(self) -> int:
        """Optimizer steps of all ranks at the last averaging event."""
        if self.is_running:
            return self.run.rounds.global_step
        return self._restored["rounds"]["global_step"] if self._restored else 0

    def close_epoch(self) -> None:
        """Gather the metrics of the epoch; every rank calls this after its last event."""
        self._epoch_metrics = self.run.rounds.close_epoch()

    # Checkpoints

    def checkpoint_state(self, *, epoch_steps: int) -> RunState | None:
        """Return what a checkpoint holds of the run, or of the last one.

        Args:
            epoch_steps: As of `Run.state_dict`.
        """
        if self.is_running:
            self._restored = self.run.state_dict(epoch_steps=epoch_steps)
        return self._restored

    def load_state_dict(self, state: RunState | None) -> None:
        """Continue from what a checkpoint holds of a run; `None`: from one of another strategy."""
        self._restored = state
        if self.is_running:
            self._continue()

    def _continue(self) -> None:
        if self._restored is not None:
            self.run.load_state_dict(self._restored)
        else:
            self.run.rounds.global_step = self._first_step

    @override
    def load_checkpoint(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        checkpoint = super().load_checkpoint(*args, **kwargs)
        self._first_step = checkpoint.get("global_step", 0)
        if self._is_alone:
            self._progress = resume_on_one_device(checkpoint)
        return checkpoint

    @override
    def save_checkpoint(self, *args: Any, **kwargs: Any) -> None:
        if not self.is_running or self._alignment.phase is Phase.FAILED:
            super().save_checkpoint(*args, **kwargs)
            return
        error: Exception | None = None
        try:
            self._write_checkpoint(*args, **kwargs)
        except Exception as err:
            error = err
        # Only the ranks that write can fail; the others would wait for them.
        failed = self.run.rounds.gather(error is not None)
        if error is not None:
            raise error
        if any(failed):
            raise RankFailed(failed.index(1.0), "an error when it saved a checkpoint")

    def _write_checkpoint(
        self,
        checkpoint: dict[str, Any],
        filepath: str | Path,
        storage_options: object | None = None,
    ) -> None:
        if getattr(storage_options, "shared", None) is not None:  # each rank writes its own rows
            self.checkpoint_io.save_checkpoint(checkpoint, filepath, storage_options)
        else:
            super().save_checkpoint(checkpoint, filepath, storage_options)
