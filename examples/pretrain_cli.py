"""The model and the data of `pretrain_stdlib.py`, configured by a file instead of by code.

Run `python examples/pretrain_cli.py fit --config examples/pretrain_stdlib.yaml`.
"""

from __future__ import annotations

from char_gpt import CharGPT
from lightning.pytorch.cli import LightningCLI
from quiet_lightning import quiet_lightning
from stdlib_text import StdlibText


def main() -> None:
    """Run the subcommand of the command line."""
    quiet_lightning()
    LightningCLI(CharGPT, StdlibText)


if __name__ == "__main__":
    main()
