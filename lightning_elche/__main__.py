"""`python -m lightning_elche` is `elche`, for where scripts are not on the path."""

from __future__ import annotations

import sys

from lightning_elche.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
