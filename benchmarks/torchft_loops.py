"""The loops of torchft: each rank is a replica group of its own, rank 0 has the lighthouse."""

from __future__ import annotations

import os
from argparse import Namespace
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import timedelta

import torch
from plain_loop import PlainLoop
from torch.distributed import TCPStore
from torchft import Manager, ProcessGroupGloo
from torchft.coordination import LighthouseServer
from torchft.local_sgd import DiLoCo, LocalSGD
from workload import WORKLOADS, loader, optimizer_for

NUM_REPLICAS = 2
TIMEOUT = timedelta(seconds=120)


@contextmanager
def local_sgd_loop(options: Namespace) -> Iterator[PlainLoop]:
    """LocalSGD: the average of the parameters."""
    loop = _loop(options)
    with (
        _manager(loop) as manager,
        LocalSGD(manager, loop.module, loop.optimizer, sync_every=options.local_steps),
    ):
        yield loop


@contextmanager
def diloco_loop(options: Namespace) -> Iterator[PlainLoop]:
    """DiLoCo: an outer optimizer steps along the average of what the ranks did."""
    loop = _loop(options)
    outer = torch.optim.SGD(loop.module.parameters(), lr=0.7, momentum=0.9, nesterov=True)
    with (
        _manager(loop) as manager,
        DiLoCo(manager, [loop.module], loop.optimizer, outer, sync_every=options.local_steps),
    ):
        yield loop


def _loop(options: Namespace) -> PlainLoop:
    module = WORKLOADS[options.workload]()
    return PlainLoop(
        module=module, optimizer=optimizer_for(module), batches=loader(options.batches)
    )


@contextmanager
def _manager(loop: PlainLoop) -> Iterator[Manager]:
    rank, address = os.environ["RANK"], os.environ["HOST_ADDRESS"]
    lighthouse = f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"
    with ExitStack() as stack:
        if rank == "0":
            server = LighthouseServer(bind=lighthouse, min_replicas=NUM_REPLICAS)
            stack.callback(server.shutdown)
        store = TCPStore(address, 0, is_master=True, wait_for_workers=False)
        manager = Manager(
            pg=ProcessGroupGloo(timeout=TIMEOUT),
            load_state_dict=loop.module.load_state_dict,
            state_dict=loop.module.state_dict,
            min_replica_size=NUM_REPLICAS,
            use_async_quorum=False,  # DiLoCo asks for it
            timeout=TIMEOUT,
            quorum_timeout=TIMEOUT,
            rank=0,
            world_size=1,
            store_addr=address,
            store_port=store.port,
            lighthouse_addr=f"http://{lighthouse}",
            replica_id=rank,
            hostname=address,
            init_sync=False,  # all ranks start from the same seed
        )
        stack.callback(manager.shutdown)
        yield manager
