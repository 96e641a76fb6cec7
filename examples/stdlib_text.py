"""The sources of Python's own standard library, as text to learn from: on every machine, real."""

from __future__ import annotations

import sysconfig
from collections.abc import Sequence
from pathlib import Path

import torch
from lightning.pytorch import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from typing_extensions import override

VOCABULARY = 128  # ASCII codes; any other character reads as "?"
HELD_OUT_EVERY = 10  # one file of ten is for validation


class StdlibText(LightningDataModule):
    """Windows of characters from the modules at the top of Python's standard library.

    Whole files are held out for validation, so that no text is seen in both roles.

    Args:
        context: Characters in a window.
        batch_size: Windows in a batch.
        chars: Characters to train on; one epoch reads each of them once.
        val_chars: Characters to validate on.
        seed: Order of the training windows where no other sampler sets one.
    """

    def __init__(
        self,
        context: int = 64,
        batch_size: int = 16,
        chars: int = 1_500_000,
        val_chars: int = 131_072,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if min(chars, val_chars) < context * batch_size:
            raise ValueError(
                f"`chars` and `val_chars` must be at least one batch ({context * batch_size}), "
                f"got {chars} and {val_chars}."
            )
        self.context = context
        self.batch_size = batch_size
        self.chars = chars
        self.val_chars = val_chars
        self.seed = seed

    @override
    def setup(self, stage: str | None = None) -> None:
        train_files, val_files = split_files(source_files(stdlib_folder()))
        self.train = Windows(read_tokens(train_files, limit=self.chars), self.context)
        self.val = Windows(read_tokens(val_files, limit=self.val_chars), self.context)

    @override
    def train_dataloader(self) -> DataLoader[tuple[Tensor, Tensor]]:
        order = torch.Generator().manual_seed(self.seed)
        return DataLoader(self.train, batch_size=self.batch_size, shuffle=True, generator=order)

    @override
    def val_dataloader(self) -> DataLoader[tuple[Tensor, Tensor]]:
        return DataLoader(self.val, batch_size=4 * self.batch_size)


class Windows(Dataset[tuple[Tensor, Tensor]]):
    """Consecutive windows of `context` tokens, each with the tokens that follow its own.

    Args:
        tokens: One-dimensional token ids.
        context: Tokens in a window.
    """

    def __init__(self, tokens: Tensor, context: int) -> None:
        self.tokens = tokens
        self.context = context

    def __len__(self) -> int:
        return max(0, len(self.tokens) - 1) // self.context

    @override
    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        begin = index * self.context
        window = self.tokens[begin : begin + self.context + 1]
        return window[:-1], window[1:]


def stdlib_folder() -> Path:
    """Return where the running Python keeps its standard library."""
    return Path(sysconfig.get_paths()["stdlib"])


def source_files(folder: Path) -> list[Path]:
    """Return the Python files directly in `folder`, sorted by name.

    Raises:
        FileNotFoundError: If there are too few of them to hold some out.
    """
    files = sorted(folder.glob("*.py"))
    if len(files) < HELD_OUT_EVERY:
        raise FileNotFoundError(
            f"{folder} must hold the standard library's .py files, found {len(files)}. "
            "This Python may keep its library in a zip file; use another Python."
        )
    return files


def split_files(files: Sequence[Path]) -> tuple[list[Path], list[Path]]:
    """Return the files to train on and those held out, one of ten."""
    held_out = list(files[HELD_OUT_EVERY - 1 :: HELD_OUT_EVERY])
    return [file for file in files if file not in held_out], held_out


def encode(text: str) -> Tensor:
    """Return the ASCII code of each character; 63, "?", for one that has none."""
    codes = bytearray(text.encode("ascii", errors="replace"))
    return torch.frombuffer(codes, dtype=torch.uint8).long() if codes else torch.empty(0).long()


def read_tokens(files: Sequence[Path], *, limit: int) -> Tensor:
    """Return at most `limit` token ids, and the one after them as the last target."""
    parts: list[Tensor] = []
    missing = limit + 1
    for file in files:
        if missing <= 0:
            break
        parts.append(encode(file.read_text(encoding="utf-8", errors="replace"))[:missing])
        missing -= len(parts[-1])
    return torch.cat(parts)
