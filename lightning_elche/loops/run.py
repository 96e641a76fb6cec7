"""What belongs to one `fit` on several ranks: channels, data, rounds, and how it ends."""

from __future__ import annotations

import json
import logging
import math
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from lightning.pytorch.utilities import rank_zero_warn

from lightning_elche.control.chunks import ChunkConfig
from lightning_elche.control.controller import Controller
from lightning_elche.control.explanation import explain
from lightning_elche.control.guard import GuardAction
from lightning_elche.coordination.stopping.run_control import RunControl
from lightning_elche.data.agreed_progress import gather_progress
from lightning_elche.data.dealer import Consumed, Dealer
from lightning_elche.data.epoch_progress import EpochProgress
from lightning_elche.distributed.averager import Averager
from lightning_elche.distributed.collectives import GroupCollectives
from lightning_elche.distributed.control_store import ControlStore, default_store
from lightning_elche.distributed.optimizer_averager import OptimizerAverager
from lightning_elche.distributed.replica_exchange import ReplicaExchange
from lightning_elche.distributed.replicas import check_replicas
from lightning_elche.distributed.rounds import Rounds
from lightning_elche.distributed.rounds_parts import RoundsParts
from lightning_elche.distributed.scripts import Script
from lightning_elche.distributed.shutdown import destroy_groups_at_exit
from lightning_elche.distributed.snapshot_rounds import SnapshotRounds
from lightning_elche.distributed.throttle import THROTTLED
from lightning_elche.distributed.timing import timer_for
from lightning_elche.exceptions import PeerLost
from lightning_elche.loops.alignment import Alignment, Phase
from lightning_elche.loops.checkpoint_state import RunState
from lightning_elche.loops.last_words import LAST_EVENT_S, LastWords
from lightning_elche.loops.pausing import Pause
from lightning_elche.loops.run_config import RunConfig
from lightning_elche.loops.stop_link import StopLink

if TYPE_CHECKING:
    import torch

    from lightning_elche.control.events import AveragingEvent

__all__ = ["Run"]

log = logging.getLogger(__name__)

NUM_EXPLANATIONS = 100
THROTTLE_POLL_S = 0.001
SAVE_FIX = (
    "Save where ranks are aligned: with `ModelCheckpoint(every_n_train_steps=...)`, after "
    "validation, at the end of an epoch, or in a callback's `on_average_end` if "
    "`event.is_aligned`."
)


class Run:
    """One `fit`: every rank creates it at the same point, since that opens process groups.

    Args:
        name: Unique to the run and equal on every rank.
        config: Options.
        control: What this rank is asked for.
        alignment: Knows whether ranks are aligned.
        pool_size: Maps the number of batches in an epoch to the number to deal.
        may_open: Returns whether the epoch of this index may be dealt ahead of its time.
        node_rank: The node that this rank is on.
        script: May say what was done in another run.
    """

    def __init__(
        self,
        name: str,
        *,
        config: RunConfig,
        control: RunControl,
        alignment: Alignment,
        pool_size: Callable[[int], int],
        may_open: Callable[[int], bool],
        node_rank: int,
        script: Script | None = None,
    ) -> None:
        self._config, self._control, self._alignment = config, control, alignment
        self._progress: EpochProgress | None = None
        self._gathered_at = -1  # index of the event
        alignment.phase = Phase.ALIGNED
        self._store = ControlStore(default_store(), name)
        self._store.may_wait = control.has_time_to_meet
        self._collectives = GroupCollectives(
            timeout_s=config.timeout_s,
            store=self._store,
            backend="gloo" if config.backend == "cpu" else None,
            node=node_rank if config.group == "node" else None,
        )
        self.last_words = LastWords(
            self._store, self._collectives, alignment, control, node_rank=node_rank
        )
        self.stop_link = StopLink(self._store, control, self._collectives.rank)
        self.pause = Pause(control, self._store, self._collectives, timeout_s=config.timeout_s)
        chunks = config.chunks
        if not config.may_run_ahead:
            chunks = replace(chunks, lookahead_epochs=0)
        self._controller = controller = self._controller_of(config, chunks)
        self._rounds: Rounds | None = None
        self._script = script or Script()
        self.explanations: deque[str] = deque(maxlen=NUM_EXPLANATIONS)
        self._has_warned = self.has_pool = False
        self.stream_batch_size = 1
        self.dealer = Dealer(
            self._store,
            config=chunks,
            rank=self._collectives.rank,
            plan=lambda: controller.plan,
            limit=pool_size,
            steps=lambda: self._rounds.window.batches if self._rounds else 0,
            may_open=may_open,
            script=self._script,
        )
        destroy_groups_at_exit()

    def _controller_of(self, config: RunConfig, chunks: ChunkConfig) -> Controller:
        return Controller(
            self._collectives.world_size,
            cadence=config.cadence,
            guard=config.guard,
            policy=config.policy,
            chunks=chunks,
            nodes=self._collectives.nodes,
        )

    @property
    def is_started(self) -> bool:
        """Whether there are averaging rounds."""
        return self._rounds is not None

    @property
    def rounds(self) -> Rounds:
        """The averaging rounds, once `start` was called."""
        if self._rounds is None:
            raise RuntimeError("`rounds` exist only after the model was set up.")
        return self._rounds

    def start(
        self,
        module: torch.nn.Module,
        device: torch.device,
        optimizers: Callable[[], Sequence[torch.optim.Optimizer]],
    ) -> None:
        """Make the replicas equal and start the rounds.

        Args:
            module: The model, on its device.
            device: Where it is trained.
            optimizers: Returns its optimizers, once they are set up.

        Raises:
            RankMismatch: If ranks hold different models.
        """
        check_replicas(module, self._collectives)
        config = self._config
        replica = self._replica_of(module, optimizers)
        replica.averager.start()
        parts = RoundsParts(
            controller=self._controller,
            collectives=self._collectives,
            store=self._store,
            replica=replica,
            timer=timer_for(device),
            timeout_s=config.timeout_s,
            max_batch_diff=config.max_batch_diff,
            script=self._script,
        )
        if config.exchanges_in_background:
            timeout_s = config.snapshot_timeout_s
            self._rounds = SnapshotRounds(snapshot_timeout_s=timeout_s, **parts)
        else:
            self._rounds = Rounds(**parts)

    def _replica_of(
        self,
        module: torch.nn.Module,
        optimizers: Callable[[], Sequence[torch.optim.Optimizer]],
    ) -> ReplicaExchange:
        config = self._config
        on_host = config.backend == "cpu"
        averager = Averager(
            module.parameters(),
            module.buffers(),
            self._collectives,
            outer_optimizer=config.outer_optimizer,
            compression=config.compression,
            on_host=on_host,
        )
        if config.optimizer_state == "keep":
            return ReplicaExchange(averager)
        every = config.optimizer_state_every
        states = OptimizerAverager(optimizers, self._collectives, every=every, on_host=on_host)
        return ReplicaExchange(averager, states)

    def begin_epoch(self, epoch: int) -> None:
        """Start counting a new epoch, once its data are opened."""
        # Samples weigh equally where one pool deals them; private streams count by rank.
        weighting = self._config.weighting
        weighs_samples = self.has_pool if weighting == "auto" else weighting == "samples"
        self.rounds.window.weighs_samples = weighs_samples
        batches = self.dealer.total if self.has_pool else 0
        before = self.dealer.trained_before if self.has_pool else 0
        self.rounds.begin_epoch(epoch, batches=batches, before=before)

    def is_drained(self, *, is_last_batch: bool) -> bool:
        """Return whether this rank has no data left in this epoch, the next one aside."""
        return is_last_batch or (self.has_pool and self.dealer.is_finished)

    def begin_step(self) -> None:
        """Mark the begin of a training step: ranks are no longer aligned."""
        self._alignment.phase = Phase.STEP
        self._gathered_at = -1
        self.rounds.window.begin_step()

    def end_step(self, *, is_optimizer_step: bool, optimizer_steps: int = 1) -> None:
        """Mark the end of a training step and count its batch as trained.

        Args:
            is_optimizer_step: As of `WindowTracker.end_step`.
            optimizer_steps: As of `WindowTracker.end_step`.
        """
        if self.has_pool:
            consumed = self.dealer.consume()
        else:
            consumed = Consumed(self.stream_batch_size, is_ahead=False)
        self.rounds.window.end_step(
            **consumed._asdict(),
            is_optimizer_step=is_optimizer_step,
            optimizer_steps=optimizer_steps,
        )

    def meet_if_due(
        self, *, is_drained: bool, should_stop: bool, needs_alignment: bool = False
    ) -> AveragingEvent | None:
        """Average with all ranks if all agree to; a rank too far ahead waits until it is not."""
        throttle, deadline = self.rounds.throttle, time.monotonic() + self._config.timeout_s
        while True:
            requests = self.last_words.requests(
                should_stop=should_stop, needs_alignment=needs_alignment
            )
            event = self.rounds.meet_if_due(is_drained=is_drained, requests=requests)
            if event is not None:
                return self._noted(event)
            if throttle is None:
                return None
            batches = self.rounds.window.batches
            throttle.post(batches, is_drained=is_drained)
            if is_drained or not throttle.is_ahead(batches):
                return None
            if time.monotonic() > deadline:
                raise PeerLost((), THROTTLED.format(self._config))
            time.sleep(THROTTLE_POLL_S)
            self.rounds.window.waited_s += THROTTLE_POLL_S

    def wait_for_event(
        self, *, should_stop: bool, needs_alignment: bool = False, wait_s: float = math.inf
    ) -> AveragingEvent:
        """Wait, without data, for the next averaging event."""
        words = self.last_words
        ask = partial(words.requests, should_stop=should_stop, needs_alignment=needs_alignment)
        if self.rounds.throttle is not None:
            self.rounds.throttle.post(self.rounds.window.batches, is_drained=True)
        return self._noted(self.rounds.wait_for_event(ask=ask, wait_s=wait_s))

    def align(self, *, is_drained: bool, should_stop: bool) -> AveragingEvent:
        """Average now, which all ranks do; afterwards they are aligned."""
        requests = self.last_words.requests(should_stop=should_stop)
        return self._noted(self.rounds.average(is_drained=is_drained, requests=requests))

    def _noted(self, event: AveragingEvent) -> AveragingEvent:
        if event.is_aligned:
            self._alignment.phase = Phase.ALIGNED
        self.explanations.append(explain(event))
        if event.action is GuardAction.TIGHTEN:
            self._warn_of_momentum()
        if log.isEnabledFor(logging.DEBUG):
            log.debug("%s | %s", self.explanations[-1], json.dumps(self.rounds.describe()))
        return event

    def _warn_of_momentum(self) -> None:
        outer = self._config.outer_optimizer
        if outer is None or not outer.momentum or self._has_warned:
            return
        self._has_warned = True
        rank_zero_warn(
            "Replicas drift apart while `outer_optimizer` has momentum, which moves them further "
            f"than they went: got {outer}. If the loss grows, set `momentum=0.0` or lower `lr`."
        )

    def last_event(self, exception: BaseException, *, is_in_step: bool) -> AveragingEvent | None:
        """As `LastWords.take_part`; `None` if it was an averaging event that failed."""
        if self.rounds.is_meeting:
            return None
        return self.last_words.take_part(exception, self._meet_a_last_time, is_in_step=is_in_step)

    def _meet_a_last_time(self) -> AveragingEvent:
        event = self.wait_for_event(should_stop=False, wait_s=LAST_EVENT_S)
        return event if event.is_aligned else self.align(is_drained=True, should_stop=False)

    def explained(self, err: RuntimeError, when: str) -> RuntimeError:
        """As `GroupCollectives.explained`."""
        return self._collectives.explained(err, when)

    def close(self) -> None:
        """Let go of what only this run used, unless it has failed and a peer may still need it."""
        self._script.close()
        self._control.reset()
        if self._alignment.phase is not Phase.FAILED:
            self._store.wait_until_all_leave(world_size=self._collectives.world_size)
            self._collectives.close()

    def state_dict(self, *, epoch_steps: int = 0) -> RunState:
        """Return the state for a checkpoint.

        Args:
            epoch_steps: Optimizer steps that all ranks have made in this epoch.

        Raises:
            MisalignedCollective: Within a step.
        """
        if self._alignment.phase is Phase.FAILED:
            # What was gathered at the last event, if this rank has trained nothing since.
            is_fresh = self._gathered_at == self.rounds.plan.index
            return RunState(
                rounds=self.rounds.state_dict(), data=self._progress if is_fresh else None
            )
        self._alignment.allows("Trainer.save_checkpoint", fix=SAVE_FIX)
        if self.has_pool:
            self._progress = gather_progress(self.dealer, self._collectives, steps=epoch_steps)
            self._gathered_at = self.rounds.plan.index
        return RunState(rounds=self.rounds.state_dict(), data=self._progress)

    def load_state_dict(self, state: RunState) -> None:
        """Continue from `state`."""
        self.rounds.load_state_dict(state["rounds"])
        if state["data"] is not None:
            self.dealer.restore(state["data"])
