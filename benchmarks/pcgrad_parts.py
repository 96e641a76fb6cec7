"""The parts of what PCGrad costs, each measured by a function; TorchJD where it is installed."""

from __future__ import annotations

import multiprocessing
import os
import statistics
import time
from collections.abc import Callable, Mapping
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer, seed_everything
from overhead import EpochTime
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset
from typing_extensions import override

from lightning_elche.callbacks.pcgrad import PCGrad
from lightning_elche.ops.gram import GramBuffer
from lightning_elche.ops.order import step_generator
from lightning_elche.ops.per_task import (
    TaskGradients,
    add_weighted,
    backward_each,
    backward_weighted,
)
from lightning_elche.ops.projection import pcgrad_weights
from lightning_elche.ops.reach import search_graph

BATCH = 64
LAYERS = 3
TORCHJD = {
    "TorchJD, defaults": {},
    "TorchJD, optimize_gramian_computation": {"optimize": True},
    "TorchJD, parallel_chunk_size=1": {"chunk": 1},
    "TorchJD, both": {"chunk": 1, "optimize": True},
}
Step = Callable[[int], None]


# Aggregation


def aggregation_ms(num_tasks: int, numel: int, repeats: int) -> dict[str, float]:
    """Return medians: of what is to be read and written at least, of ours, of the literal one."""
    buffer = GramBuffer(num_tasks, numel, torch.float32, "cpu")
    generator = torch.Generator().manual_seed(0)
    for task in range(num_tasks):
        buffer.row(task).normal_(generator=generator).add_(0.01 * (-1) ** task)
    rows = [buffer.row(task) for task in range(num_tasks)]
    written = torch.empty(numel)

    def least() -> None:
        for _ in range(2):
            for row in rows:
                torch.dot(row, row)  # reads it once
        written.fill_(1.0)

    def ours() -> None:
        weights, _ = pcgrad_weights(buffer.gram(), generator=step_generator(0, 0))
        buffer.combine(weights)

    return medians({"floor": least, "ours": ours, "literal": partial(literal, rows)}, repeats)


def literal(rows: list[Tensor]) -> Tensor:
    """Return the result of the published algorithm, computed on the vectors themselves."""
    generator, total = step_generator(0, 0), torch.zeros_like(rows[0])
    for task in range(len(rows)):
        projected = rows[task].clone()
        for other in torch.randperm(len(rows), generator=generator).tolist():
            product = torch.dot(projected, rows[other])
            if other != task and product < 0.0:
                projected -= product / torch.dot(rows[other], rows[other]) * rows[other]
        total += projected
    return total


def gram_error(num_tasks: int, numel: int) -> float:
    """Return the largest error of a cosine, of rows that have much in common."""
    rows = torch.randn(num_tasks, numel, generator=torch.Generator().manual_seed(0)) + 0.5
    buffer = GramBuffer(num_tasks, numel, torch.float32, "cpu")
    for task, row in enumerate(rows):
        buffer.row(task).copy_(row)
    exact = rows.double() @ rows.double().T
    norms = exact.diagonal().sqrt()
    return float(((buffer.gram() - exact) / torch.outer(norms, norms)).abs().max())


# A whole step


class Net(nn.Module):
    """A multilayer perceptron of about `numel` parameters, and a small head for each task."""

    def __init__(self, num_tasks: int, numel: int) -> None:
        super().__init__()
        width = max(1, round((numel / LAYERS) ** 0.5))
        layers = [[nn.Linear(width, width), nn.ReLU()] for _ in range(LAYERS)]
        self.trunk = nn.Sequential(*(part for layer in layers for part in layer))
        self.heads = nn.ModuleList(nn.Linear(width, 1) for _ in range(num_tasks))
        generator = torch.Generator().manual_seed(0)
        self.batch = torch.randn(BATCH, width, generator=generator)
        self.targets = torch.randn(BATCH, num_tasks, generator=generator)

    def losses(self) -> tuple[list[Tensor], Tensor]:
        """Return the losses, and what the heads see."""
        hidden = self.trunk(self.batch)
        return [
            (head(hidden).squeeze(1) - self.targets[:, task]).square().mean()
            for task, head in enumerate(self.heads)
        ], hidden


def plain_step(net: Net) -> Step:
    """Train on the sum."""

    def step(_: int) -> None:
        torch.stack(net.losses()[0]).sum().backward()

    return step


def our_step(net: Net, *, is_direct: bool) -> Step:
    """Train as the callback does, without Lightning."""
    gradients, named = TaskGradients(shared_only=True), dict(net.named_parameters())
    scale = torch.tensor(1.0)

    def step(number: int) -> None:
        losses, _ = net.losses()
        gradients.begin(len(losses), named, lambda: [search_graph(loss) for loss in losses])
        backward_each(losses, gradients, scale, frees_graph=is_direct)
        weights, _ = pcgrad_weights(gradients.gram(), generator=step_generator(0, number))
        if is_direct:
            add_weighted(gradients, weights.tolist())
        else:
            backward_weighted(losses, gradients, scale, weights.tolist())

    return step


def torchjd_step(net: Net, *, chunk: int | None = None, optimize: bool = False) -> Step:
    """Train as TorchJD's documentation shows for several tasks."""
    from torchjd.aggregation import PCGrad as Aggregator
    from torchjd.autojac import jac_to_grad, mtl_backward

    shared = list(net.trunk.parameters())

    def step(_: int) -> None:
        losses, hidden = net.losses()
        mtl_backward(losses, features=hidden, parallel_chunk_size=chunk)
        jac_to_grad(shared, Aggregator(), optimize_gramian_computation=optimize)

    return step


def steps_of(num_tasks: int, numel: int) -> dict[str, Callable[[], Step]]:
    """Return what makes the step of each row."""

    def make(kind: Callable[..., Step], **options: Any) -> Callable[[], Step]:  # noqa: ANN401
        def trained() -> Step:
            net = Net(num_tasks, numel)
            optimizer, step = torch.optim.SGD(net.parameters(), lr=1e-4), kind(net, **options)

            def whole(number: int) -> None:
                optimizer.zero_grad()
                step(number)
                optimizer.step()

            return whole

        return trained

    rows = {
        "sum of the losses": make(plain_step),
        "PCGrad, reweight": make(our_step, is_direct=False),
        "PCGrad, direct": make(our_step, is_direct=True),
    }
    if find_spec("torchjd") is not None:
        rows |= {name: make(torchjd_step, **options) for name, options in TORCHJD.items()}
    return rows


def step_ms(num_tasks: int, numel: int, repeats: int) -> dict[str, float]:
    """Return the median time of a step in each row, measured in turns."""
    numbers = iter(range(1_000_000))
    steps = {name: make() for name, make in steps_of(num_tasks, numel).items()}
    calls = {name: (lambda step=step: step(next(numbers))) for name, step in steps.items()}
    return medians(calls, repeats)


def peak_rows(name: str, num_tasks: int, numel: int) -> float:
    """Return the memory that a training takes at most, in vectors of all parameters."""
    # The allocator then returns what was freed, so that only what is in use counts.
    os.environ["MALLOC_MMAP_THRESHOLD_"] = str(2**20)
    context = multiprocessing.get_context("spawn")
    with context.Pool(1) as pool:
        return pool.apply(_peak, (name, num_tasks, numel))


def _peak(name: str, num_tasks: int, numel: int) -> float:
    make = steps_of(num_tasks, numel)[name]
    steps_of(num_tasks, 10_000)[name]()(0)  # loads the libraries
    before = memory_bytes("VmRSS")
    step = make()
    for number in range(3):
        step(number)
    return (memory_bytes("VmHWM") - before) / (4 * numel)


def memory_bytes(name: str) -> int:
    """Return what this process holds of memory, or held at most, unlike `ru_maxrss` by itself."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))


# Hooks


class Tiny(LightningModule):
    """A model whose step costs next to nothing."""

    def __init__(self, *, as_list: bool) -> None:
        super().__init__()
        self.layer = nn.Linear(1, 2)
        self.as_list = as_list

    @override
    def training_step(self, batch: list[Tensor]) -> Any:
        first, second = self.layer(batch[0]).mean(0)
        return [first, second] if self.as_list else first + second

    @override
    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=1e-5)


class Empty(Callback):
    """Does nothing; Lightning calls all of its hooks."""


class CpuTime(EpochTime):
    """Notes the time of this process only, which hooks do not wait in; one thread."""

    @override
    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._began = time.process_time()

    @override
    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.seconds.append(time.process_time() - self._began)


def hook_us(callback: Callback, *, steps: int, as_list: bool = False) -> float:
    """Return how long a step takes in microseconds, the first epoch aside."""
    seed_everything(0, verbose=False)
    clock = CpuTime()
    trainer = Trainer(
        accelerator="cpu",
        devices=1,
        max_epochs=3,
        callbacks=[clock, callback],
        logger=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        enable_progress_bar=False,
    )
    trainer.fit(Tiny(as_list=as_list), DataLoader(TensorDataset(torch.ones(steps, 1))))
    return 1e6 * statistics.median(clock.seconds[1:]) / steps


def hooks_us(steps: int, repeats: int) -> dict[str, float]:
    """Return by how much a step is longer than with an empty callback; medians."""
    never = {"start_step": 10**9}
    added: dict[str, list[float]] = {}
    for _ in range(repeats):
        empty = hook_us(Empty(), steps=steps)
        measured = {
            "one plain loss": hook_us(PCGrad(), steps=steps),
            "a list of losses, added": hook_us(PCGrad(**never), steps=steps, as_list=True),
            "a list of losses, combined": hook_us(PCGrad(), steps=steps, as_list=True),
        }
        for name, taken in measured.items():
            added.setdefault(name, []).append(taken - empty)
    return {name: statistics.median(taken) for name, taken in added.items()}


def medians(calls: Mapping[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Return how long each call takes in milliseconds, measured in turns after a first one."""
    taken: dict[str, list[float]] = {name: [] for name in calls}
    for repeat in range(repeats + 1):
        for name, call in calls.items():
            began = time.perf_counter()
            call()
            if repeat:
                taken[name].append(1e3 * (time.perf_counter() - began))
    return {name: statistics.median(times) for name, times in taken.items()}
