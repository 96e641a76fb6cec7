"""Data by speed: who trains which batches of an epoch."""

from lightning_elche.data.cycle import Cycle

__all__ = ["Cycle"]
