"""From a broken contract to the exit code of the process."""

from __future__ import annotations

import contextlib
import re
import sys
from collections.abc import Iterator

from torch.multiprocessing.spawn import ProcessRaisedException

from lightning_elche.contracts.verdicts import Abort
from lightning_elche.exceptions import GateViolation

__all__ = ["exit_on_violation"]

# What a launcher by fork or spawn knows of the error of a rank is its traceback.
IN_TRACEBACK = re.compile(rf"^{GateViolation.__module__}\.GateViolation: (([A-Z_]+).*)$", re.M)


@contextlib.contextmanager
def exit_on_violation() -> Iterator[None]:
    """End the process with the code of a training contract that is broken inside.

    A rank that another rank has started ends with 0, since Lightning's launcher kills the rank that
    it runs in when a child of it ends with anything else, and the code would be lost.

    Example:
        >>> from lightning_elche import exit_on_violation
        >>> with exit_on_violation():
        ...     pass  # trainer.fit(model)
    """
    try:
        yield
    except GateViolation as err:
        if err.is_child:
            sys.exit(0)
        print(err, file=sys.stderr)
        sys.exit(err.exit_code)
    except ProcessRaisedException as err:
        found = IN_TRACEBACK.search(str(err))
        if found is None or found[2] not in Abort.__members__:
            raise
        print(found[1], file=sys.stderr)
        sys.exit(Abort[found[2]].value)
