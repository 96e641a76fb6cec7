"""What is written once per run or epoch: the run record, the contract, the metadata."""

from __future__ import annotations

from dataclasses import asdict, fields
from pathlib import Path

from lightning_elche.contracts.float32 import format_float32, to_float32
from lightning_elche.contracts.model import Contract
from lightning_elche.contracts.records import EpochRecord, RunRecord
from lightning_elche.contracts.runfolder.durable import sync_folder, write_durably
from lightning_elche.contracts.runfolder.epochfiles import find_epoch_files
from lightning_elche.contracts.runfolder.names import CONTRACT_COPY, RUN_FILE, SUPERSEDED
from lightning_elche.contracts.strictjson import dump_strictly
from lightning_elche.contracts.template import PathTemplate

__all__ = ["epoch_facts", "supersede_epochs", "write_contract_copy", "write_epoch", "write_run"]

FLOAT32_FIELDS = frozenset(
    {"train_loss", "val_loss", "train_ppl", "val_ppl", "grad_norm_max", "train_loss_last100"}
)


def write_run(run_dir: Path, record: RunRecord) -> None:
    """Replace the run record at once and for good.

    Raises:
        OSError: If it cannot be written.
    """
    write_durably(run_dir / RUN_FILE, dump_strictly(asdict(record), indent=2))


def write_contract_copy(run_dir: Path, text: bytes) -> None:
    """Keep the contract of the run beside its logs, byte by byte.

    Raises:
        OSError: If it cannot be written.
    """
    write_durably(run_dir / CONTRACT_COPY, text)


def write_epoch(path: Path, record: EpochRecord) -> None:
    """Write the metadata of an epoch.

    Raises:
        OSError: If they cannot be written.
    """
    write_durably(path, dump_strictly(epoch_facts(record), indent=2))


def epoch_facts(record: EpochRecord) -> dict[str, object]:
    """Return the metadata of an epoch as they are written; what is `None` is left out.

    A CKPT_FAILED event tells them as `metadata`, so that the epoch can be judged all the same.
    """
    known = {field.name: getattr(record, field.name) for field in fields(record)}
    return {name: _exact(name, value) for name, value in known.items() if value is not None}


def supersede_epochs(
    run_dir: Path, contract: Contract, *, from_epoch: int, attempt: int
) -> tuple[Path, ...]:
    """Move the files of epochs that are about to be trained again out of the way.

    Args:
        run_dir: Folder of the run.
        contract: Says where the files lie.
        from_epoch: The first epoch to be trained again.
        attempt: The attempt that does so; names the folder below "superseded".

    Returns:
        Where the files lie now.

    Raises:
        OSError: If one cannot be moved, or a file of this attempt lies there already.
    """
    moved = []
    for template in (contract.metadata_template, contract.checkpoint_template):
        if template is not None:
            moved += _supersede(run_dir, template, from_epoch, attempt)
    return tuple(moved)


def _supersede(run_dir: Path, template: PathTemplate, from_epoch: int, attempt: int) -> list[Path]:
    folder = run_dir / template.folder
    moved = []
    for file in find_epoch_files(run_dir, template):
        if file.epoch < from_epoch:
            continue
        target = folder / SUPERSEDED / f"attempt-{attempt}" / file.path.relative_to(folder)
        if target.exists():
            raise FileExistsError(
                f"`attempt` must be one that has superseded nothing yet, got {attempt}: {target} "
                "is there. Number attempts on from the run record, not from the checkpoint."
            )
        target.parent.mkdir(parents=True, exist_ok=True)
        file.path.rename(target)
        sync_folder(target.parent)
        sync_folder(file.path.parent)
        moved.append(target)
    return moved


def _exact(name: str, value: object) -> object:
    if name in FLOAT32_FIELDS and isinstance(value, (int, float)):
        return float(format_float32(to_float32(value)))
    return value
