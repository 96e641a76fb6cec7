"""`elche coord config`: the options, and whether a file of them is valid."""

from __future__ import annotations

import argparse

import yaml

from lightning_elche.cli.outcome import Line, Outcome
from lightning_elche.cli.streams import told
from lightning_elche.coordination.config import CoordinationConfig

__all__ = ["config"]

INVALID, UNREADABLE = 2, 3


def config(options: argparse.Namespace) -> Outcome:
    """Return the options with their defaults, or whether a file of them is valid."""
    if options.check is None:
        values = CoordinationConfig().to_dict()
        text = yaml.safe_dump(values, sort_keys=False, default_flow_style=None)
        return Outcome(lines=tuple(map(Line, text.splitlines())), data={"config": values})
    try:
        values = CoordinationConfig.load(options.check).to_dict()
    except ValueError as err:
        return Outcome.error(type(err).__name__, str(err), options.check, INVALID)
    except OSError as err:
        return Outcome.error(type(err).__name__, told(err), options.check, UNREADABLE)
    return Outcome(
        lines=(Line(f"{options.check} is valid", "DONE", is_calm=True),), data={"config": values}
    )
