"""What is known of a run before it begins, for its record and for those who judge it."""

from __future__ import annotations

import math
import os
import platform
import uuid
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import lightning
import torch

from lightning_elche.callbacks.gate_options import GateOptions
from lightning_elche.contracts.gates.hyperparameters import resolve_hyperparameters
from lightning_elche.contracts.model import Contract
from lightning_elche.contracts.records import RunRecord
from lightning_elche.contracts.runfolder.runlog import utc_now
from lightning_elche.version import VERSION

if TYPE_CHECKING:
    from lightning.pytorch import Trainer

__all__ = ["first_record"]


def first_record(
    trainer: Trainer,
    contract: Contract,
    options: GateOptions,
    *,
    gpu_util_source: str,
    shares_epochs: bool,
) -> RunRecord:
    """Return the record of a run that is about to begin.

    Args:
        trainer: Of the run.
        contract: Its contract.
        options: As of `GateTrain`.
        gpu_util_source: As of `GpuUtilization.source`.
        shares_epochs: Whether ranks share the batches of an epoch by their speed.
    """
    hyperparameters, explicit = resolve_hyperparameters(
        contract, mode=options.mode, overrides=options.overrides
    )
    seed, now = os.environ.get("PL_GLOBAL_SEED"), utc_now()
    world_size, planned = trainer.world_size, trainer.num_training_batches
    return RunRecord(
        run_id=uuid.uuid4().hex,
        attempt=0,
        status="RUNNING",
        stop_reason=None,
        exit_code=None,
        started_at=now,
        updated_at=now,
        epochs_completed=0,
        steps=0,
        planned_batches=None if math.isinf(planned) or shares_epochs else int(planned) or None,
        tokens_seen=0,
        contract=_identity(contract),
        mode=options.mode,
        vocab_size=options.vocab_size,
        hyperparameters={} if hyperparameters is None else asdict(hyperparameters),
        explicit=tuple(sorted(explicit)),
        seed=int(seed) if seed else None,
        determinism=_determinism(),
        provenance=_provenance(trainer, options),
        device=trainer.strategy.root_device.type,
        gpu_util_source=gpu_util_source,
        token_unit="token" if options.num_tokens is not None else "sample",
        world_size=world_size,
        logged_ranks=tuple(range(world_size if options.log_ranks == "all" else 1)),
        versions=_versions(),
    )


def _identity(contract: Contract) -> dict[str, str | None]:
    return {
        "path": contract.path,
        "id": contract.contract_id,
        "version": contract.version,
        "sha256": contract.sha256,
    }


def _versions() -> dict[str, str]:
    return {
        "lightning": lightning.__version__,
        "lightning-elche": VERSION,
        "python": platform.python_version(),
        "torch": torch.__version__,
    }


def _determinism() -> dict[str, bool]:
    return {
        "cudnn_benchmark": torch.backends.cudnn.benchmark,
        "cudnn_deterministic": torch.backends.cudnn.deterministic,
        "deterministic_algorithms": torch.are_deterministic_algorithms_enabled(),
    }


def _provenance(trainer: Trainer, options: GateOptions) -> dict[str, Any]:
    return {
        "synthetic": options.synthetic,
        "fast_dev_run": bool(getattr(trainer, "fast_dev_run", False)),
        "overfit_batches": getattr(trainer, "overfit_batches", 0),
        "limit_train_batches": trainer.limit_train_batches,
        "limit_val_batches": trainer.limit_val_batches,
    }
