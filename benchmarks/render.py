"""Makes tables and a plot from the JSON that `hetero.py` and `link.py` wrote."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from results import add_output_options, as_markdown, check_output_options, read, write


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the tables of all files, write what is asked for, and return the exit code 0."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("files", nargs="+", type=Path, help="results, in the order of the tables")
    add_output_options(parser)
    options = parser.parse_args(arguments)
    check_output_options(parser, options)
    results = [result for file in options.files for result in read(file)]
    print("\n".join(as_markdown(result) for result in results), end="")
    write(results, options)
    return 0


if __name__ == "__main__":
    sys.exit(main())
