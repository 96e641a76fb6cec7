"""What fingerprints cost beside one copy of the state and beside a training step."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from functools import partial

import torch
from overhead import quiet_options
from torch import Tensor, nn

from lightning_elche.ops.replay_tensors import replay_tensors
from lightning_elche.ops.rml_torch import named_lanes
from lightning_elche.partition.replay_lanes import LanesPoint, fingerprint_of

CADENCE = 8  # steps between two averaging events
BATCH = 16  # sequences of `LENGTH` tokens
LENGTH = 128
Timed = dict[str, Callable[[], object]]


class Blocks(nn.Module):
    """A transformer of as many parameters as wanted, with as many tensors as is usual for it."""

    def __init__(self, width: int, depth: int) -> None:
        super().__init__()
        self.width = width
        layer = nn.TransformerEncoderLayer(width, 4, 4 * width, dropout=0.0, batch_first=True)
        self.layers = nn.TransformerEncoder(layer, depth, enable_nested_tensor=False)
        self.optimizer = torch.optim.AdamW(self.parameters())

    def step(self) -> None:
        """Train on one batch."""
        self.optimizer.zero_grad()
        self.layers(torch.randn(BATCH, LENGTH, self.width)).square().mean().backward()
        self.optimizer.step()

    def tensors(self, *, is_full: bool) -> dict[str, Tensor]:
        """Return what is fingerprinted."""
        optimizers = [self.optimizer] if is_full else []
        return replay_tensors(self.state_dict(), optimizers, module=self)


def point(model: Blocks, *, is_full: bool) -> LanesPoint:
    """Do all that replay does at a point, writing aside."""
    lanes = named_lanes(model.tensors(is_full=is_full))
    found = fingerprint_of(lanes, step=1)
    return LanesPoint.of("after", lanes, step=1, sync_index=0, value=found.value)


def copy(to: Mapping[str, Tensor], tensors: Mapping[str, Tensor]) -> None:
    """Copy into memory that is there."""
    for name, tensor in tensors.items():
        to[name].copy_(tensor)


def operations(width: int, depth: int) -> tuple[int, Timed]:
    """Return the size of a state in bytes, and what is timed of it, by name."""
    model = Blocks(width, depth)
    model.step()
    state = {name: tensor.detach() for name, tensor in model.tensors(is_full=True).items()}
    kept = {name: tensor.clone() for name, tensor in state.items()}
    return sum(tensor.nbytes for tensor in state.values()), {
        "copy": partial(copy, kept, state),
        "lanes": partial(named_lanes, state),
        "full": partial(point, model, is_full=True),
        "model": partial(point, model, is_full=False),
        "step": model.step,
    }


def median_ms(timed: Timed, repeats: int) -> dict[str, float]:
    """Return medians, measured in turns."""
    times: dict[str, list[float]] = {name: [] for name in timed}
    for _ in range(repeats):
        for name, operation in timed.items():
            began = time.perf_counter()
            operation()
            times[name].append(1000.0 * (time.perf_counter() - began))
    return {name: statistics.median(taken) for name, taken in times.items()}


def main() -> None:
    """Print a line for each size of model."""
    options = quiet_options(__doc__)
    print(f"batches of {BATCH * LENGTH} tokens, AdamW, {torch.get_num_threads()} threads")
    print(f"at an event: two fingerprints, every {CADENCE} steps, in percent of the steps")
    print(f"{'':16}{'MB':>6}{'step':>8}{'copy':>7}{'lanes':>7}{'GB/s':>6}{'copies':>8}", end="")
    print(f"{'full':>7}{'model':>7}")
    for width, depth in ((64, 2), (128, 4), (256, 6), (512, 6)):
        num_bytes, timed = operations(width, depth)
        took = median_ms(timed, options.repeats)
        shares = [2 * took[name] / (CADENCE * took["step"]) for name in ("full", "model")]
        print(f"width {width:3}, depth {depth}{num_bytes / 1e6:6.1f}", end="")
        print(f"{took['step']:8.1f}{took['copy']:7.2f}{took['lanes']:7.2f}", end="")
        print(f"{num_bytes / took['lanes'] / 1e6:6.1f}{took['lanes'] / took['copy']:8.2f}", end="")
        print("".join(f"{share:7.1%}" for share in shares))


if __name__ == "__main__":
    main()
