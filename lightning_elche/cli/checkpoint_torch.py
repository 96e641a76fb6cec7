"""A state written in the formats of torch."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.state_dict_saver import save

__all__ = ["save_ckpt", "save_dcp"]


def save_ckpt(state: Mapping[str, Any], path: Path) -> None:
    """Write the file that Lightning's own checkpoints are."""
    with path.open("xb") as file, _as_os_error(path):
        torch.save(state, file)


def save_dcp(state: Mapping[str, Any], path: Path) -> None:
    """Write a folder of `torch.distributed.checkpoint`, by this process alone."""
    with warnings.catch_warnings():
        # That there is but one process is just what is meant; torch 2.4 deprecates what it does.
        warnings.filterwarnings("ignore", "torch.distributed is|TypedStorage", UserWarning)
        with _as_os_error(path):
            save(dict(state), checkpoint_id=path)


@contextlib.contextmanager
def _as_os_error(path: Path) -> Iterator[None]:
    """Raise what torch says of a file that cannot be written as what it is."""
    try:
        yield
    except (RuntimeError, CheckpointException) as err:
        raise OSError(f"{path} could not be written: {err}") from err
