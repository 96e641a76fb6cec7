"""Cadence averaging for people who own their training loop, on Lightning Fabric."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any

import torch
from torch.utils.data import DataLoader

from lightning_elche.coordination.stopping.run_control import RunControl
from lightning_elche.data.sampler import deal_from, has_private_stream
from lightning_elche.loops.alignment import Alignment
from lightning_elche.loops.run import Run
from lightning_elche.loops.run_config import RunConfig

if TYPE_CHECKING:
    from lightning.fabric import Fabric
    from typing_extensions import Self

    from lightning_elche.control.epoch_metrics import EpochMetrics
    from lightning_elche.control.events import AveragingEvent

__all__ = ["ElCheLoop"]

END = object()
LEFT_EARLY = (
    "The loop over `epoch` was left before its end, so that the other ranks wait. Call `stop()` "
    "and let the loop end, instead of `break`."
)


class ElCheLoop:
    """Yields this rank's batches and averages replicas in between, when all ranks agree.

    Use it as a context manager, so that an error on one rank ends the others. The model must not be
    passed to `fabric.setup`, which would synchronise gradients; move it to the device instead.
    `fabric.launch` comes first.

    Args:
        fabric: Launches the ranks; strategy "ddp".
        model: The model, on its device.
        optimizers: Its optimizers.
        config: Options, as of `ElCheStrategy`.
        num_epochs: Epochs that you will ask for, with one loader. With policy "async" or backend
            "cpu", a rank out of work then trains batches of the next epoch. Default: it waits.

    Example:
        >>> import torch
        >>> from lightning.fabric import Fabric
        >>> from lightning_elche import ElCheLoop
        >>> fabric = Fabric(accelerator="cpu", devices=1)
        >>> model = fabric.to_device(torch.nn.Linear(1, 1))
        >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        >>> loader = torch.utils.data.DataLoader(torch.ones(6, 1), batch_size=2)
        >>> with ElCheLoop(fabric, model, [optimizer]) as loop:
        ...     for batch in loop.epoch(loader):
        ...         loss = model(fabric.to_device(batch)).square().mean()
        ...         loss.backward()
        ...         optimizer.step()
        ...         optimizer.zero_grad()
    """

    def __init__(
        self,
        fabric: Fabric,
        model: torch.nn.Module,
        optimizers: Sequence[torch.optim.Optimizer],
        *,
        config: RunConfig | None = None,
        num_epochs: int = 0,
    ) -> None:
        self._epoch = 0
        self._should_stop = False
        self._epoch_metrics: EpochMetrics | None = None
        self._loaders: dict[int, tuple[DataLoader[Any], DataLoader[Any]]] = {}
        self._is_within_epoch = False
        self._run: Run | None = None
        if fabric.world_size > 1:
            self._run = Run(
                fabric.broadcast(uuid.uuid4().hex),
                config=config or RunConfig(),
                control=RunControl(),
                alignment=Alignment("raise"),
                pool_size=lambda total: total,
                may_open=lambda epoch: epoch < num_epochs and not self._should_stop,
                node_rank=fabric.node_rank,
            )
            self._run.start(model, fabric.device, lambda: optimizers)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        del kind, traceback
        if self._run is None:
            return
        if error is not None:
            self._run.last_words.tell(error)
        elif self._is_within_epoch:
            left = RuntimeError(LEFT_EARLY)
            self._run.last_words.tell(left)
            raise left
        else:
            self._run.close()

    @property
    def global_step(self) -> int:
        """Steps of all ranks at the last averaging event; 0 with one device."""
        return self._run.rounds.global_step if self._run is not None else 0

    @property
    def epoch_metrics(self) -> EpochMetrics | None:
        """The metrics of the last complete epoch; `None` before, and with one device."""
        return self._epoch_metrics

    @property
    def is_stopped(self) -> bool:
        """Whether a rank asked to stop and all ranks have agreed."""
        return self._should_stop

    def stop(self) -> None:
        """Ask all ranks to end the epoch at the next averaging event."""
        self._should_stop = True

    def add_loss(self, loss: torch.Tensor) -> None:
        """Count the loss of a step in the metrics of the epoch, without reading it."""
        if self._run is not None:
            self._run.rounds.window.add_loss(loss)

    def epoch(self, loader: DataLoader[Any]) -> Iterator[Any]:
        """Yield this rank's batches of one epoch; a step is what happens until the next one.

        All ranks leave together, with equal parameters. Do not `break` out of it: call `stop`.

        Args:
            loader: Deals from a map-style dataset to all ranks; with an `IterableDataset` each rank
                has a stream of its own. A shuffling sampler must be seeded equally on all ranks.
        """
        if self._run is None:
            yield from loader
            return
        if self._is_within_epoch:
            raise RuntimeError(LEFT_EARLY)
        self._is_within_epoch = True
        run = self._run
        batches = iter(self._dealt(loader, run))
        run.begin_epoch(self._epoch)
        batch = next(batches, END)
        is_over = False
        while batch is not END and not is_over:
            run.begin_step()
            following = next(batches, END)  # known before the step, as in Lightning's fetcher
            yield batch
            run.end_step(is_optimizer_step=True)
            is_drained, batch = run.is_drained(is_last_batch=following is END), following
            event = run.meet_if_due(is_drained=is_drained, should_stop=self._should_stop)
            is_over = event is not None and self._ends_epoch(run, event, is_drained=is_drained)
        while not is_over:
            event = run.wait_for_event(should_stop=self._should_stop)
            is_over = self._ends_epoch(run, event, is_drained=True)
        self._epoch_metrics = run.rounds.close_epoch()
        self._epoch += 1
        self._is_within_epoch = False

    def explain(self, last: int = 5) -> str:
        """Return why the last averaging events happened when they did."""
        return "\n".join(list(self._run.explanations)[-last:]) if self._run is not None else ""

    def _ends_epoch(self, run: Run, event: AveragingEvent, *, is_drained: bool) -> bool:
        """Return whether all ranks leave the epoch here; if so, they are aligned."""
        is_over = event.is_epoch_complete or event.should_stop
        if is_over and not event.is_aligned:
            event = run.align(is_drained=is_drained, should_stop=self._should_stop)
        if event.is_aligned:
            self._should_stop = event.should_stop
        return is_over

    def _dealt(self, loader: DataLoader[Any], run: Run) -> DataLoader[Any]:
        if has_private_stream(loader):
            run.stream_batch_size = loader.batch_size or 1
            return loader
        run.has_pool = True
        if id(loader) not in self._loaders:  # once, since workers persist from epoch to epoch
            dealt = deal_from(loader, dealer=run.dealer, epoch=lambda: self._epoch)
            self._loaders[id(loader)] = (loader, dealt)  # kept, so that no other gets its id
        return self._loaders[id(loader)][1]
