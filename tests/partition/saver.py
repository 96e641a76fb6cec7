"""A process that saves one step after the other, and says which ones are saved.

Its arguments: the root, the number of steps, what is added to the weights, how many checkpoints are
kept, and the size of the weight.
"""

from __future__ import annotations

import sys
from pathlib import Path

from lightning_elche.partition.errors import DivergentWriters
from lightning_elche.partition.fs import this_host
from lightning_elche.partition.store import CheckpointStore
from lightning_elche.partition.store_config import StoreConfig
from tests.partition.states import make_snapshot, make_tensor


def main(root: str, steps: str, added: str, keep: str, size: str) -> None:
    config = StoreConfig(max_retained=int(keep))
    store = CheckpointStore(Path(root), host=this_host(), config=config)
    for step in range(1, int(steps) + 1):
        tensor = make_tensor("w", step + float(added), size=int(size))
        try:
            saved = store.save(make_snapshot(step, groups={"model": [tensor]}))
        except DivergentWriters:
            print("divergent", step, flush=True)
        else:
            print("new" if saved.is_new else "equal", step, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
