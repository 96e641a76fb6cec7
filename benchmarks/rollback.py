"""What a snapshot costs beside copying memory and `torch.save`, and Rollback's hooks in a step."""

from __future__ import annotations

import io
import statistics
import time
from collections.abc import Callable
from functools import partial

import torch
from gate_overhead import Empty, step_us
from overhead import quiet_options
from torch import Tensor, nn

from lightning_elche.callbacks.rollback import Rollback
from lightning_elche.ops.blocks import Blocks
from lightning_elche.ops.ring import RingConfig
from lightning_elche.ops.snapshot import LiveState, Snapshot

WIDTH, DEPTH = 1000, 10  # 10 million parameters
NEVER = 10**9


def trained_model() -> LiveState:
    """Return 10 million parameters with the state of AdamW."""
    model = nn.Sequential(*(nn.Linear(WIDTH, WIDTH) for _ in range(DEPTH)))
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.randn(4, WIDTH)).square().mean().backward()
    optimizer.step()
    optimizer.zero_grad()
    return LiveState(module=model, device=torch.device("cpu"), optimizers=[optimizer])


def state_dict(live: LiveState) -> dict[str, object]:
    """Return what a checkpoint would hold."""
    return {"model": live.module.state_dict(), "optimizer": live.optimizers[0].state_dict()}


def save(live: LiveState) -> None:
    """Serialise the state into memory."""
    torch.save(state_dict(live), io.BytesIO())


def load(live: LiveState, saved: bytes) -> None:
    """Load the state from memory."""
    state = torch.load(io.BytesIO(saved), weights_only=True)
    live.module.load_state_dict(state["model"])
    live.optimizers[0].load_state_dict(state["optimizer"])


def operations() -> dict[str, Callable[[], object]]:
    """Return what is timed, by name, all of one state."""
    live = trained_model()
    named, cells = live.parts()
    flat = torch.cat([tensor.detach().reshape(-1) for tensor in (*named.values(), *cells.values())])
    copy: Tensor = torch.zeros_like(flat)
    snapshot, blocks = Snapshot(), Blocks()
    snapshot.put(live)
    tensors = [tensor.detach() for part in (named, cells) for tensor in part.values()]
    buffer = io.BytesIO()
    torch.save(state_dict(live), buffer)
    return {
        "one copy of the memory": partial(copy.copy_, flat),
        "snapshot": partial(snapshot.put, live),
        "of it the copy": partial(blocks.load, tensors, [False] * len(tensors)),
        "restore": partial(snapshot.restore, live),
        "torch.save to memory": partial(save, live),
        "torch.load from memory": partial(load, live, buffer.getvalue()),
    }


def median_ms(repeats: int, threads: int) -> dict[str, float]:
    """Return medians, measured in turns, with a number of threads."""
    torch.set_num_threads(threads)
    timed = operations()
    times: dict[str, list[float]] = {name: [] for name in timed}
    for _ in range(repeats):
        for name, operation in timed.items():
            began = time.perf_counter()
            operation()
            times[name].append(1000.0 * (time.perf_counter() - began))
    torch.set_num_threads(1)
    return {name: statistics.median(taken) for name, taken in times.items()}


def print_memory(repeats: int, threads: int) -> None:
    """Measure a snapshot beside the other ways, and print it."""
    took = median_ms(repeats, threads)
    print(f"10 million parameters with AdamW, 120 MB, threads: {threads}")
    print(f"{'':30}{'ms':>8}{'copies':>8}{'of torch.save':>15}")
    for name, ms in took.items():
        copies, saves = ms / took["one copy of the memory"], ms / took["torch.save to memory"]
        print(f"{name:30}{ms:8.1f}{copies:8.2f}{saves:15.2f}")
    print(f"restore / torch.load: {took['restore'] / took['torch.load from memory']:.2f}\n")


def hooks_us(repeats: int, steps: int) -> dict[str, float]:
    """Return what a step takes with each callback, in microseconds, measured in turns."""
    variants: dict[str, Callable[[], float]] = {
        "empty callback": lambda: step_us(steps, callbacks=[Empty()]),
        "Rollback without snapshots": lambda: step_us(
            steps, callbacks=[Rollback(RingConfig(every=NEVER))]
        ),
        "Rollback": lambda: step_us(steps, callbacks=[Rollback()]),
    }
    times: dict[str, list[float]] = {name: [] for name in variants}
    for _ in range(repeats):
        for name, variant in variants.items():
            times[name].append(variant())
    return {name: statistics.median(taken) for name, taken in times.items()}


def main() -> None:
    """Measure in turns and print medians."""
    default = torch.get_num_threads()
    options = quiet_options(__doc__)
    for threads in sorted({1, default}, reverse=True):
        print_memory(3 * options.repeats, threads)
    steps = hooks_us(options.repeats, options.steps)
    print(f"{'':30}{'us a step':>10}{'added':>8}")
    for name, us in steps.items():
        print(f"{name:30}{us:10.0f}{us - steps['empty callback']:+8.0f}")


if __name__ == "__main__":
    main()
