"""Two nodes of two ranks each, joined by a slow link: does averaging inside nodes pay?

Each rank sleeps in its steps, so that four of them fit on two cores; what is real is the exchange.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
import unequal
from lightning.pytorch import Callback, LightningModule, Trainer, seed_everything
from machine import describe_machine
from rate_limit import Host, can_rate_limit, rate_limited_hosts
from results import machine_line
from typing_extensions import override

from lightning_elche import ElCheStrategy
from lightning_elche.testing import run_ranks

if TYPE_CHECKING:
    from lightning_elche import AveragingEvent

ROWS = ("ddp", "world", "node")
NUM_NODES, RANKS_PER_NODE = 2, 2
BATCH_SIZE = 4
TIMEOUT_S = 600.0

# Of one training: seconds, averaging events, and how many of them crossed nodes.
Outcome = tuple[float, int, int]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark and return the exit code."""
    options = parse_arguments(arguments)
    unequal.clean_up_on_sigterm()
    print(f"{headline(options)}\n{machine_line(describe_machine())}", flush=True)
    repeats: list[dict[str, Outcome]] = []
    for _ in range(options.repeats):
        repeats.append({row: measure(row, options) for row in ROWS})
        print("  " + ", ".join(f"{row} {repeats[-1][row][0]:.1f} s" for row in ROWS), flush=True)
    print(render(repeats, samples=options.batches * BATCH_SIZE))
    return 0


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Return the checked options of the command line."""
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").split("\n")[0],
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add("--mbit", type=float, default=100.0, help="Mbit/s of the link between the nodes")
    add("--width", type=int, default=500, help="the model is a matrix of so many rows and columns")
    add("--step-ms", type=float, default=10.0, help="how long a rank sleeps in a step")
    add("--batches", type=int, default=4000, help="over all ranks")
    add("--repeats", type=int, default=3, help="how often to measure every row; medians count")
    options = parser.parse_args(arguments)
    for name, value in vars(options).items():
        if not value > 0:
            parser.error(f"argument --{name.replace('_', '-')}: must be positive, got {value}")
    if not can_rate_limit():
        parser.error("the link needs root, and the programs ip, tc and nsenter")
    return options


def headline(options: argparse.Namespace) -> str:
    """Return what is trained, and on what."""
    return (
        f"{NUM_NODES} nodes of {RANKS_PER_NODE} ranks, link {options.mbit:g} Mbit/s, "
        f"{4e-6 * options.width**2:.1f} MB of parameters, steps of {options.step_ms:g} ms"
    )


def measure(row: str, options: argparse.Namespace) -> Outcome:
    """Train on two namespaces, and return what the first rank saw."""
    with rate_limited_hosts(options.mbit) as hosts:
        ranks = run_ranks(
            train,
            world_size=NUM_NODES * RANKS_PER_NODE,
            timeout_s=TIMEOUT_S,
            env={"MASTER_ADDR": hosts[0].address, "OMP_NUM_THREADS": "1"},
            row=row,
            hosts=hosts,
            options=vars(options),
        )
    outcome: Outcome = ranks[0].value
    return outcome


def train(row: str, hosts: tuple[Host, Host], options: dict[str, Any]) -> Outcome:
    """Train as one of the ranks."""
    node, local_rank = divmod(int(os.environ["RANK"]), RANKS_PER_NODE)
    os.environ.update(NODE_RANK=str(node), LOCAL_RANK=str(local_rank))
    hosts[node].enter()
    seed_everything(0, verbose=False)
    watch = Watch()
    trainer = Trainer(
        accelerator="cpu",
        devices=RANKS_PER_NODE,
        num_nodes=NUM_NODES,
        strategy="ddp" if row == "ddp" else ElCheStrategy(group=row),  # type: ignore[arg-type]
        max_epochs=1,
        callbacks=[watch],
        logger=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        enable_progress_bar=False,
    )
    data = torch.zeros(options["batches"] * BATCH_SIZE, 1)
    loader = torch.utils.data.DataLoader(data, batch_size=BATCH_SIZE)  # type: ignore[arg-type]
    trainer.fit(Matrix(options["width"], options["step_ms"] / 1000.0), loader)
    return watch.seconds, len(watch.crossed), sum(watch.crossed)


class Matrix(LightningModule):
    """One matrix, whose steps take a while."""

    def __init__(self, width: int, step_s: float) -> None:
        super().__init__()
        self.matrix = torch.nn.Parameter(torch.ones(width, width))
        self.step_s = step_s

    @override
    def training_step(self, batch: torch.Tensor, batch_idx: int) -> torch.Tensor:
        time.sleep(self.step_s)
        return self.matrix.square().mean()

    @override
    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.01)


class Watch(Callback):
    """Times the training and counts the averaging events."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.crossed: list[bool] = []

    @override
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.seconds = -time.perf_counter()

    @override
    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.seconds += time.perf_counter()

    def on_average_end(self, event: AveragingEvent) -> None:
        """Note whether the event crossed nodes; called by ElCheStrategy."""
        self.crossed.append(event.crossed_nodes)


def render(repeats: Sequence[dict[str, Outcome]], *, samples: int) -> str:
    """Return the table of the medians; ratios are taken within a repeat."""
    lines = [f"{'':<24}{'samples/s':>10}{'x DDP':>8}{'events':>8}{'across nodes':>14}"]
    labels = ("Lightning's DDP", 'group="world"', 'group="node"')
    for row, label in zip(ROWS, labels, strict=True):
        seconds, events, across = (
            statistics.median(repeat[row][part] for repeat in repeats) for part in range(3)
        )
        over_ddp = statistics.median(repeat["ddp"][0] / repeat[row][0] for repeat in repeats)
        counts = f"{events:>8.0f}{across:>14.0f}" if events else f"{'-':>8}{'-':>14}"
        lines.append(f"{label:<24}{samples / seconds:>10,.0f}{over_ddp:>8.2f}{counts}")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
