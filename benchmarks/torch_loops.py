"""The loops of what PyTorch itself has for unequal ranks, as its documentation shows them."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Iterator
from contextlib import contextmanager

import torch.distributed as dist
from plain_loop import PlainLoop
from torch.distributed.algorithms.ddp_comm_hooks.post_localSGD_hook import (
    PostLocalSGDState,
    post_localSGD_hook,
)
from torch.distributed.algorithms.join import Join
from torch.distributed.algorithms.model_averaging.averagers import PeriodicModelAverager
from torch.nn.parallel import DistributedDataParallel
from workload import WORKLOADS, loader, optimizer_for


@contextmanager
def join_loop(options: Namespace) -> Iterator[PlainLoop]:
    """DDP whose ranks may have different numbers of batches."""
    dist.init_process_group("gloo")
    module = DistributedDataParallel(WORKLOADS[options.workload]())
    yield PlainLoop(
        module=module,
        optimizer=optimizer_for(module),
        batches=loader(options.batches),
        around_epoch=lambda: Join([module]),
    )


@contextmanager
def averager_loop(options: Namespace) -> Iterator[PlainLoop]:
    """Post-local SGD: DDP for the first steps, then averages of the parameters only."""
    dist.init_process_group("gloo")
    module = DistributedDataParallel(WORKLOADS[options.workload]())
    warm_up = options.local_steps - 1  # so that it averages at the end of an epoch
    state = PostLocalSGDState(
        None, None, start_localSGD_iter=warm_up, post_local_gradient_allreduce=False
    )
    module.register_comm_hook(state, post_localSGD_hook)
    averager = PeriodicModelAverager(period=options.local_steps, warmup_steps=warm_up)
    yield PlainLoop(
        module=module,
        optimizer=optimizer_for(module),
        batches=loader(options.batches),
        after_step=lambda: averager.average_parameters(module.parameters()),
    )
