"""Epochs as a healthy run records them."""

from __future__ import annotations

import hashlib
from typing import Any

from lightning_elche.contracts.float32 import perplexity
from lightning_elche.contracts.records import EpochRecord


def epoch_record(epoch: int, **changed: Any) -> EpochRecord:
    """Return the record of an epoch whose loss falls, and whose perplexities follow the losses."""
    facts: dict[str, Any] = {
        "train_loss": 3.0 - 0.5 * epoch,
        "val_loss": 3.25 - 0.5 * epoch,
        "optimizer_state_sha": hashlib.sha256(b"state %d" % epoch).hexdigest(),
        "wall_seconds": 20.0,
        "tokens_seen": 4096 * (epoch + 1),
        "grad_norm_max": 1.5,
        "optimizer_state_bytes": 1024,
        **changed,
    }
    facts.setdefault("train_ppl", perplexity(facts["train_loss"]))
    facts.setdefault("val_ppl", perplexity(facts["val_loss"]))
    return EpochRecord(epoch=epoch, **facts)
