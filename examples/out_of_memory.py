"""One of two ranks has little memory: it leaves the long files to the other one, and goes on."""

from __future__ import annotations

import argparse
import os
import resource
from pathlib import Path

import torch
from lightning.pytorch import Callback, LightningModule, Trainer, seed_everything
from quiet_lightning import quiet_lightning
from stdlib_text import VOCABULARY, read_tokens, source_files, stdlib_folder
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset
from typing_extensions import override

from lightning_elche import Coordination, ElCheStrategy
from lightning_elche.coordination import CoordinationConfig, FaultConfig

CONTEXT = 8  # characters that a character is guessed from
LONGEST = 60_000  # characters of a file
SPARE_BYTES = 192 << 20  # what rank 1 may take beyond what it has after a few batches


def main() -> None:
    """Train on every file of Python's standard library, one file a batch."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    quiet_lightning()
    seed_everything(0, verbose=False)
    torch.set_num_threads(1)
    files = Files(source_files(stdlib_folder()))
    config = CoordinationConfig(faults=FaultConfig(redeal_skipped=True))
    trainer = Trainer(
        accelerator="cpu",
        devices=2,
        strategy=ElCheStrategy(),
        callbacks=[Coordination(config), LittleMemory(rank=1)],
        max_epochs=1,
        logger=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        enable_progress_bar=False,
    )
    trainer.fit(NextCharacter(), DataLoader(files, batch_size=None, shuffle=True))
    if trainer.is_global_zero:
        print(
            f"There are {len(files)} files of up to {max(map(len, files.texts)):,} characters.\n"
            "Rank 0 trained those that rank 1 skipped, but for any that it skipped at the very end."
        )


class Files(Dataset[Tensor]):
    """The characters of each file.

    Args:
        paths: The files.
    """

    def __init__(self, paths: list[Path]) -> None:
        texts = (read_tokens([path], limit=LONGEST) for path in paths)
        self.texts = [text for text in texts if len(text) > CONTEXT]

    def __len__(self) -> int:
        return len(self.texts)

    @override
    def __getitem__(self, index: int) -> Tensor:
        return self.texts[index]


class NextCharacter(LightningModule):
    """Guesses each character of a file from those before it; a long file takes much memory."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(VOCABULARY, 16)
        self.layers = nn.Sequential(
            nn.Linear(16 * CONTEXT, 128), nn.ReLU(), nn.Linear(128, VOCABULARY)
        )
        self.trained: list[int] = []
        self.skipped = 0

    @override
    def training_step(self, text: Tensor) -> Tensor:
        windows = text.unfold(0, CONTEXT + 1, 1)
        guesses = self.layers(self.embedding(windows[:, :-1]).flatten(1))
        return F.cross_entropy(guesses, windows[:, -1])

    @override
    def on_train_batch_end(self, outputs: object, batch: Tensor, batch_idx: int) -> None:
        if outputs:
            self.trained.append(len(batch))
        else:  # there was not enough memory
            self.skipped += 1

    @override
    def on_train_end(self) -> None:
        print(
            f"Rank {self.global_rank} trained {len(self.trained)} files of up to "
            f"{max(self.trained):,} characters, and skipped {self.skipped}."
        )

    @override
    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), lr=1e-3)


class LittleMemory(Callback):
    """Lets the operating system refuse one rank more memory.

    Args:
        rank: Which.
    """

    def __init__(self, rank: int) -> None:
        self.rank = rank

    @override
    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Tensor, batch_idx: int
    ) -> None:
        if trainer.global_rank == self.rank and batch_idx == 3:
            set_limit(taken_bytes() + SPARE_BYTES)

    @override
    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        set_limit(resource.RLIM_INFINITY)


def taken_bytes() -> int:
    """Return the address space that this process has taken."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    return pages * os.sysconf("SC_PAGE_SIZE")


def set_limit(num_bytes: int) -> None:
    """Limit the address space of this process."""
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (num_bytes, hard))


if __name__ == "__main__":
    main()
