"""What a user of Lightning may ask for, one recipe each; all run in one set of ranks.

A recipe gets a `Bench`, trains, and returns what the tests compare between the ranks.
"""

from __future__ import annotations

import os
import random
import warnings
from pathlib import Path
from typing import Any

from lightning.pytorch import seed_everything

from tests.features import (
    checkpoint_recipes,
    data_recipes,
    limit_recipes,
    logging_recipes,
    optimization_recipes,
)
from tests.features.bench import Bench, Recipe

RECIPES: dict[str, Recipe] = {
    **checkpoint_recipes.RECIPES,
    **limit_recipes.RECIPES,
    **logging_recipes.RECIPES,
    **optimization_recipes.RECIPES,
    **data_recipes.RECIPES,
}


def run_recipes(folder: str, names: list[str], seed: int) -> dict[str, dict[str, Any]]:
    """Run recipes one after the other, on every rank; an error is the outcome of its recipe."""
    warnings.simplefilter("ignore")
    world_size, rank = int(os.environ["WORLD_SIZE"]), int(os.environ["RANK"])
    delays = random.Random(seed)
    outcomes = {}
    for name in names:
        slow = [delays.uniform(1.0, 6.0) for _ in range(world_size)] if seed else [1.0, 4.0, 2.0]
        seed_everything(7, verbose=False)
        bench = Bench(world_size, tuple(slow), Path(folder) / name)
        print(f"--- {name} on rank {rank}", flush=True)
        try:
            outcomes[name] = RECIPES[name](bench)
        except Exception as err:
            outcomes[name] = {"error": f"{type(err).__name__}: {err}"}
    return outcomes
