"""Keeps Lightning's advice out of the examples' output; warnings about the training stay."""

from __future__ import annotations

import logging
import warnings

ADVICE = (
    # The data sets are small and in memory: a worker process would only copy them.
    ".*does not have many workers.*",
    # Only the example with a classifier that could be validated, and is not.
    ".*but have no .val_dataloader.*",
    # An idiom inside lightning 2.6 that recent releases of torch deprecate.
    ".*isinstance.treespec, LeafSpec.. is deprecated.*",
)


def quiet_lightning() -> None:
    """Silence notes on devices and launchers, and the advice in `ADVICE`."""
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    for message in ADVICE:
        warnings.filterwarnings("ignore", message=message)
