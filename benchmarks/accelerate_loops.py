"""The loop of accelerate, as its documentation shows it."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Iterator
from contextlib import contextmanager

from accelerate import Accelerator
from accelerate.local_sgd import LocalSGD
from plain_loop import PlainLoop
from workload import WORKLOADS, loader, optimizer_for


@contextmanager
def local_sgd_loop(options: Namespace) -> Iterator[PlainLoop]:
    """LocalSGD: the average of the parameters; accelerate shares out the batches itself."""
    accelerator = Accelerator(cpu=True)
    plain = WORKLOADS[options.workload]()
    module, optimizer, batches = accelerator.prepare(
        plain, optimizer_for(plain), loader(options.batches * accelerator.num_processes)
    )
    steps = options.local_steps
    with LocalSGD(accelerator=accelerator, model=module, local_sgd_steps=steps) as local_sgd:
        yield PlainLoop(
            module=module,
            optimizer=optimizer,
            batches=batches,
            backward=accelerator.backward,
            after_step=local_sgd.step,
        )
