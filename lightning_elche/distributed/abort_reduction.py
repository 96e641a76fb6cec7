"""Agreement on an abort where all ranks make the same steps: one number per step."""

from __future__ import annotations

from datetime import timedelta

import torch
import torch.distributed as dist

__all__ = ["AbortReduction"]

RANKS = 2**16


class AbortReduction:
    """Finds the largest code of all ranks, then the lowest rank, without waiting at each step.

    Every rank calls each method at the same step. The reduction of a step is over by the next one
    in the normal case; only then is its result read.

    Args:
        timeout_s: Longest wait for a peer in seconds.
    """

    def __init__(self, *, timeout_s: float) -> None:
        # On the host, so that no device is waited for; all ranks open the group at the same point.
        self._group = dist.new_group(backend="gloo", timeout=timedelta(seconds=timeout_s))
        self._rank = dist.get_rank()
        # One tensor for all steps: before torch 2.6, a thread of the group that lets go of a tensor
        # last waits for the GIL, which the end of the group holds while it waits for the thread.
        self._number = torch.zeros(1, dtype=torch.int64)
        self._pending: dist.Work | None = None

    def exchange(self, code: int) -> tuple[int, int] | None:
        """Hand in this rank's code, and return code and rank that counted a step before.

        Args:
            code: The exit code that this rank wants, 0 for none.
        """
        agreed = self._finish()
        # The largest number has the largest code, and among equal ones the lowest rank.
        self._number.fill_(code * RANKS + (RANKS - 1 - self._rank))
        self._pending = dist.all_reduce(
            self._number, dist.ReduceOp.MAX, group=self._group, async_op=True
        )
        return agreed

    def close(self) -> None:
        """Finish what is under way and let go of the group; every rank calls this."""
        self._finish()
        dist.destroy_process_group(self._group)

    def _finish(self) -> tuple[int, int] | None:
        if self._pending is None:
            return None
        self._pending.wait()
        self._pending = None
        code, negated_rank = divmod(int(self._number.item()), RANKS)
        return (code, RANKS - 1 - negated_rank) if code else None
