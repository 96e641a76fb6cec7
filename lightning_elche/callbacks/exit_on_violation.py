"""From what has ended a run to the exit code of the process."""

from __future__ import annotations

import contextlib
import re
import sys
from collections.abc import Iterator

from torch.multiprocessing.spawn import ProcessRaisedException

from lightning_elche.contracts.verdicts import Abort
from lightning_elche.exceptions import GateViolation, RecoveryHalted

__all__ = ["exit_on_violation"]

# What a launcher by fork or spawn knows of the error of a rank is its traceback.
OURS = re.escape(GateViolation.__module__)
BROKEN = re.compile(rf"^{OURS}\.GateViolation: (([A-Z_]+).*)$", re.M)
HALTED = re.compile(rf"^{OURS}\.RecoveryHalted: (.*)$", re.M)


@contextlib.contextmanager
def exit_on_violation() -> Iterator[None]:
    """End the process with the code of what ends a run inside: a broken contract, a lost repair.

    That is the exit code of a `GateViolation`, and 40 for `RecoveryHalted`.

    A rank that another rank has started ends with 0, since Lightning's launcher kills the rank that
    it runs in when a child of it ends with anything else, and the code would be lost.

    Example:
        >>> from lightning_elche import exit_on_violation
        >>> with exit_on_violation():
        ...     pass  # trainer.fit(model)
    """
    try:
        yield
    except (GateViolation, RecoveryHalted) as err:
        if err.is_child:
            sys.exit(0)
        print(err, file=sys.stderr)
        sys.exit(err.exit_code)
    except ProcessRaisedException as err:
        broken, halted = BROKEN.search(str(err)), HALTED.search(str(err))
        if broken is not None and broken[2] in Abort.__members__:
            print(broken[1], file=sys.stderr)
            sys.exit(Abort[broken[2]].value)
        if halted is None:
            raise
        print(halted[1], file=sys.stderr)
        sys.exit(RecoveryHalted.exit_code)
