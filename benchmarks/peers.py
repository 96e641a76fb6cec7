"""What else trains on unequal ranks, each from its own package, in a plain PyTorch loop."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec


@dataclass(frozen=True, kw_only=True)
class Peer:
    """A way to train, as its own package has it, in a plain PyTorch loop.

    Attributes:
        label: Its row in the table.
        loop: The module and the function that make its loop.
        is_tuned: Whether the ranks get batches in proportion to speeds that a person knows.
        is_local: Whether ranks train on their own between averagings, not in step.
        package: What to install, if it is not PyTorch itself.
    """

    label: str
    loop: str
    is_tuned: bool = False
    is_local: bool = True
    package: str | None = None


PEERS = {
    "join": Peer(
        label="DDP with Join, shards by hand",
        loop="torch_loops:join_loop",
        is_tuned=True,
        is_local=False,
    ),
    "averager": Peer(label="PyTorch's model averager", loop="torch_loops:averager_loop"),
    "accelerate": Peer(
        label="accelerate LocalSGD", loop="accelerate_loops:local_sgd_loop", package="accelerate"
    ),
    "torchft": Peer(
        label="torchft LocalSGD", loop="torchft_loops:local_sgd_loop", package="torchft"
    ),
    "torchft-tuned": Peer(
        label="torchft LocalSGD, by hand",
        loop="torchft_loops:local_sgd_loop",
        is_tuned=True,
        package="torchft",
    ),
    "diloco": Peer(label="torchft DiLoCo", loop="torchft_loops:diloco_loop", package="torchft"),
    "diloco-tuned": Peer(
        label="torchft DiLoCo, by hand",
        loop="torchft_loops:diloco_loop",
        is_tuned=True,
        package="torchft",
    ),
}


def missing_package(mode: str) -> str | None:
    """Return what must be installed before `mode` can run, if anything."""
    package = PEERS[mode].package if mode in PEERS else None
    return package if package and find_spec(package) is None else None
