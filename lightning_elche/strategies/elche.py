"""The Lightning strategy: wires rounds, dealer and guard to the Trainer."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from datetime import timedelta
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, Literal

from lightning.pytorch.strategies import StrategyRegistry
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor
from torch.utils.data import DataLoader
from typing_extensions import override

from lightning_elche.control.cadence import CadenceConfig
from lightning_elche.control.chunks import ChunkConfig, pool_size
from lightning_elche.control.guard import GuardConfig
from lightning_elche.control.outer import OuterOptimizer
from lightning_elche.control.schedule import Policy
from lightning_elche.data.input_timing import InputTiming, timed
from lightning_elche.data.sampler import deal_from, has_private_stream, resume_alone
from lightning_elche.loops.fit_loop import install_loops
from lightning_elche.loops.lightning_names import epoch_of, keep_user_samplers
from lightning_elche.loops.limits import max_batches_left, may_open
from lightning_elche.loops.progress import show_total_progress
from lightning_elche.loops.run import Run
from lightning_elche.loops.run_config import RunConfig, check_positive
from lightning_elche.loops.step_actions import StepActions
from lightning_elche.ops.learning_rate import scale_learning_rates
from lightning_elche.strategies.refusals import clip_gradients, refuse_for_ddp, refuse_unsupported
from lightning_elche.strategies.skipping import SkippingStrategy

if TYPE_CHECKING:
    from lightning.fabric.plugins import ClusterEnvironment
    from lightning.pytorch import Trainer
    from lightning.pytorch.plugins import CheckpointIO


__all__ = ["ElCheStrategy"]

START_METHODS = {
    "elche": "popen",
    "elche_spawn": "spawn",
    "elche_fork": "fork",
    "elche_notebook": "fork",
}


class ElCheStrategy(SkippingStrategy):
    """Trains one model on devices of unequal speed, at nearly the sum of their speeds.

    Each rank trains on its own and claims its batches from the epoch's common pool; parameters are
    averaged at events whose cadence is anchored on the slowest rank and tuned to an overhead
    target. Validation, checkpoints and stopping happen at such events. With one device it is plain
    Lightning.

    Args:
        policy: "cadence" as above; "async": a window ends when every rank has made its own number
            of steps, so that drifting speeds lengthen it; "sync": DDP itself, gradients averaged at
            every step, with Lightning's own loops and samplers.
        backend: "device": ranks stop at an event, which is over at once. "cpu": each hands in a
            snapshot, trains on, and adds `average - snapshot` once it is there.
        cadence: How often ranks meet.
        chunks: How the batches of an epoch are dealt.
        guard: When divergence between replicas limits the cadence.
        outer_optimizer: What to make of the average of the parameters, as in DiLoCo; `None` to take
            it as it is.
        compression: "bf16" to exchange parameters as bfloat16 differences to the last average, at
            half the traffic; what rounding loses is added to the next difference. Or "none".
        group: Average over the "world" at every event, or inside each "node" and over the world at
            every k-th event only, for nodes joined by a slow network; the overhead target sets k.
        optimizer_state: "average" the states of optimizers with the parameters, or "keep" them
            local, which exchanges a half to two thirds less with momentum or Adam.
        optimizer_state_every: Average the states of optimizers at every n-th averaging event only,
            which exchanges less, as in DES-LOC, arXiv 2505.22549.
        weighting: What a rank's parameters weigh: the "samples" behind them, "uniform" for equal
            weights, or "auto": samples, and uniform where each rank has a private stream of data.
        max_grad_norm: Clip each rank's gradients to this norm, as `gradient_clip_val` of the
            Trainer does, which must not be set as well.
        lr_scale_ratio: Multiply the learning rates by `1 + lr_scale_ratio * (world_size - 1)`; 1 is
            the linear scaling rule of Goyal et al., arXiv 1706.02677.
        misaligned: What to do with a collective asked for inside a training step, for example by
            `self.log(sync_dist=True, on_step=True)`: "raise", or "local" to use the own value.
        snapshot_timeout_s: With `backend="cpu"`, how long ranks wait for the snapshot of another
            one before they drop the attempt and repeat it, in seconds.
        timeout_s: Longest wait for a peer in seconds.
        process_group_backend: Backend of the parameter exchange. Default: NCCL on CUDA, else Gloo.
        start_method: How Lightning starts the ranks of a node.
        cluster_environment: Knows the nodes. Default: what the Trainer finds.
        checkpoint_io: How checkpoints are read and written.

    Example:
        >>> from lightning.pytorch import Trainer
        >>> from lightning_elche import CadenceConfig, ElCheStrategy
        >>> strategy = ElCheStrategy(cadence=CadenceConfig(anchor=20))
        >>> trainer = Trainer(strategy=strategy, accelerator="cpu", devices=2, logger=False)
    """

    def __init__(
        self,
        *,
        policy: Policy = "cadence",
        backend: Literal["device", "cpu"] = "device",
        cadence: CadenceConfig | None = None,
        chunks: ChunkConfig | None = None,
        guard: GuardConfig | None = None,
        outer_optimizer: OuterOptimizer | None = None,
        compression: Literal["none", "bf16"] = "none",
        group: Literal["world", "node"] = "world",
        optimizer_state: Literal["average", "keep"] = "average",
        optimizer_state_every: int = 1,
        weighting: Literal["auto", "samples", "uniform"] = "auto",
        max_grad_norm: float | None = None,
        lr_scale_ratio: float = 0.0,
        misaligned: Literal["raise", "local"] = "raise",
        snapshot_timeout_s: float = 5.0,
        timeout_s: float = 1800.0,
        process_group_backend: str | None = None,
        start_method: Literal["popen", "spawn", "fork", "forkserver"] = "popen",
        cluster_environment: ClusterEnvironment | None = None,
        checkpoint_io: CheckpointIO | None = None,
    ) -> None:
        self._config = RunConfig(
            cadence=cadence or CadenceConfig(),
            chunks=chunks or ChunkConfig(),
            guard=guard or GuardConfig(),
            policy=policy,
            backend=backend,
            snapshot_timeout_s=snapshot_timeout_s,
            outer_optimizer=outer_optimizer,
            compression=compression,
            group=group,
            optimizer_state=optimizer_state,
            optimizer_state_every=optimizer_state_every,
            weighting=weighting,
            timeout_s=timeout_s,
        )
        self._check_options(max_grad_norm, lr_scale_ratio)
        super().__init__(
            cluster_environment=cluster_environment,
            checkpoint_io=checkpoint_io,
            misaligned=misaligned,
            process_group_backend=process_group_backend,
            timeout=timedelta(seconds=timeout_s),
            start_method=start_method,
        )
        self._max_grad_norm, self._lr_scale_ratio = max_grad_norm, lr_scale_ratio

    @classmethod
    @override
    def register_strategies(
        cls,
        strategy_registry: Any,  # Lightning keeps the type private
    ) -> None:
        for name, start_method in START_METHODS.items():
            strategy_registry.register(
                name,
                cls,
                description=f"Cadence averaging with `start_method` '{start_method}'",
                override=True,
                start_method=start_method,
            )

    @property
    def config(self) -> RunConfig:
        """The options of the run."""
        return self._config

    @property
    def _is_ddp(self) -> bool:
        return self._config.policy == "sync" and self._config.backend == "device"

    @property
    def has_averages(self) -> bool:
        """Whether ranks train alone between averaging events."""
        return not (self._is_alone or self._is_ddp)

    @property
    def keeps_optimizer_state(self) -> bool:
        """Whether optimizer states differ between ranks after an averaging event, too."""
        config = self._config
        return config.optimizer_state == "keep" or config.optimizer_state_every > 1

    # Set-up and end

    @override
    def setup(self, trainer: Trainer) -> None:
        if self._max_grad_norm is not None:
            clip_gradients(trainer, self._max_grad_norm)
        if self._is_alone and self._progress is None:
            keep_user_samplers(trainer)
        elif trainer.state.fn == TrainerFn.FITTING and not (self._is_alone or self._is_ddp):
            refuse_unsupported(trainer, trainer.lightning_module, self._config)
            install_loops(trainer)
            self._actions = StepActions(trainer)
            # The pool first: `configure_optimizers` may ask for the number of steps, and with it
            # for the first batches. The rounds start in `configure_ddp`, on the model's device.
            name = self.broadcast(uuid.uuid4().hex)
            self._run = Run(
                name,
                config=self._config,
                control=self.control,
                alignment=self._alignment,
                pool_size=self._pool_size,
                may_open=partial(may_open, trainer),
                node_rank=self.node_rank,
                script=self._take_script(),
            )
        super().setup(trainer)

    @override
    def setup_optimizers(self, trainer: Trainer) -> None:
        super().setup_optimizers(trainer)
        factor = 1.0 + self._lr_scale_ratio * (self.world_size - 1)
        if factor != 1.0:
            schedulers = [config.scheduler for config in self.lr_scheduler_configs]
            scale_learning_rates(self.optimizers, schedulers, factor)

    @override
    def configure_ddp(self) -> None:
        """Make the replicas equal and start the rounds, instead of wrapping the module in DDP."""
        if self._is_alone:
            return
        if self._is_ddp:
            super().configure_ddp()
            return
        assert self.model is not None
        self.run.start(self.model, self.root_device, lambda: self.optimizers)
        if self._restored is not None:
            self.run.load_state_dict(self._restored)
        show_total_progress(self._trainer, self.run.rounds)

    @override
    def on_validation_start(self) -> None:
        if self._run is not None:  # for the sanity check, which comes before `on_train_start`
            self.control.signals.install()

    @override
    def on_train_start(self) -> None:
        if self._run is not None:
            # Here, since Lightning installs its own handlers after `on_fit_start`.
            self.control.signals.install()
            self._alignment.guard_default_group()

    @override
    def on_exception(self, exception: BaseException) -> None:
        super().on_exception(exception)
        if self._run is not None:
            self._run.last_words.tell(exception)

    @override
    def teardown(self) -> None:
        self.detach_faults()
        if self._actions is not None:
            self._actions.close()
        if self._run is not None:
            if self._run.is_started:
                self._restored = self._run.state_dict()  # another `fit` continues from here
            self._run.close()
        self._run = self._actions = None
        super().teardown()

    # Data

    @property
    @override
    def distributed_sampler_kwargs(self) -> dict[str, Any]:
        if self._run is not None and self._trainer.training:
            return {"num_replicas": 1, "rank": 0}  # the whole permutation, equal on every rank
        return super().distributed_sampler_kwargs

    @override
    def process_dataloader(self, dataloader: object) -> object:
        processed = self._dealt(dataloader)
        return timed(processed, self.input_timing) if self._trainer.training else processed

    @cached_property
    def input_timing(self) -> InputTiming:
        """Tells how long each batch was waited for."""
        timing = InputTiming()
        timing.listeners.append(self._note_input)
        return timing

    def _note_input(self, begun_ns: int, waited_ns: int) -> None:
        del begun_ns
        if self.is_running:
            self.run.rounds.window.input_ms += waited_ns / 1e6

    def _dealt(self, dataloader: object) -> object:
        trainer = self._trainer
        epoch = partial(epoch_of, trainer)
        if self._progress is not None and trainer.training and isinstance(dataloader, DataLoader):
            return resume_alone(dataloader, progress=self._progress, epoch=epoch)
        if self._run is None or not trainer.training:
            return super().process_dataloader(dataloader)
        if has_private_stream(dataloader):
            self._run.stream_batch_size = getattr(dataloader, "batch_size", None) or 1
            return super().process_dataloader(dataloader)
        assert isinstance(dataloader, DataLoader)
        self._run.has_pool = True
        # The pool obeys the limits instead of this rank; the fit loop restores them.
        self._pool_limit = trainer.limit_train_batches
        trainer.limit_train_batches = 1.0
        if isinstance(getattr(trainer, "val_check_interval", None), float):
            trainer.val_check_interval = 1.0
        return deal_from(dataloader, dealer=self._run.dealer, epoch=epoch)

    def _pool_size(self, total: int) -> int:
        restored_steps = self.run.dealer.restored_steps(epoch_of(self._trainer)) or 0
        return pool_size(
            total,
            limit=self._pool_limit,
            world_size=self.world_size,
            max_batches=max_batches_left(
                self._trainer, global_step=self.global_step - restored_steps
            ),
        )

    @property
    def _trainer(self) -> Trainer:
        assert self.lightning_module is not None
        return self.lightning_module.trainer

    @override
    def training_step(self, *args: Any, **kwargs: Any) -> Any:
        output = super().training_step(*args, **kwargs)
        if self._run is not None:
            loss = output.get("loss") if isinstance(output, Mapping) else output
            if isinstance(loss, Tensor):
                self._run.rounds.window.add_loss(loss)
        return output

    def _check_options(self, max_grad_norm: float | None, lr_scale_ratio: float) -> None:
        if max_grad_norm is not None:
            check_positive("max_grad_norm", max_grad_norm)
        if not 0.0 <= lr_scale_ratio <= 1.0:
            raise ValueError(f"`lr_scale_ratio` must be in [0, 1], got {lr_scale_ratio}.")
        if self._is_ddp:
            refuse_for_ddp(self._config)


ElCheStrategy.register_strategies(StrategyRegistry)
