"""Guards collectives that Lightning or the user asks for: they need aligned ranks."""

from __future__ import annotations

import enum
from typing import Literal

import torch.distributed as dist
from lightning.pytorch.utilities import rank_zero_warn

from lightning_elche.exceptions import MisalignedCollective

__all__ = ["Alignment", "Phase"]

FIX = (
    "Log with `sync_dist=True, on_epoch=True` and without `on_step=True`, compute metrics at the "
    'end of the epoch, or pass `misaligned="local"` to ElCheStrategy to use the own rank\'s value.'
)


class Phase(enum.Enum):
    """Where a rank is."""

    ALIGNED = "aligned"
    STEP = "step"
    FAILED = "failed"


class Alignment:
    """Knows whether ranks are at the same point, and answers collectives where they are not.

    Args:
        misaligned: `"raise"`, or `"local"` to answer with the own rank's value and a warning.
    """

    def __init__(self, misaligned: Literal["raise", "local"]) -> None:
        if misaligned not in ("raise", "local"):
            raise ValueError(f'`misaligned` must be "raise" or "local", got {misaligned!r}.')
        self.phase = Phase.ALIGNED
        self._misaligned = misaligned

    def allows(self, call: str, *, has_local_answer: bool = False, fix: str = FIX) -> bool:
        """Return whether the collective `call` may run; if not, the caller answers locally.

        Args:
            call: What was called.
            has_local_answer: Whether the own rank's value is a meaningful answer.
            fix: What to do instead.

        Raises:
            MisalignedCollective: Inside a step, if there is no local answer or none is wanted.
        """
        if self.phase is Phase.ALIGNED:
            return True
        if self.phase is Phase.FAILED:
            return False  # peers are elsewhere; clean-up must not wait for them
        if has_local_answer and self._misaligned == "local":
            rank_zero_warn(
                f"`{call}` was called inside a training step, where ranks are not aligned: each "
                'rank uses its own value (misaligned="local").'
            )
            return False
        raise MisalignedCollective(call, fix)

    def guard_default_group(self) -> None:
        """Guard also what bypasses the strategy, where torch can report it before it starts."""
        group = dist.group.WORLD
        register = getattr(group, "register_pre_hook", None)
        if register is None:  # torch without the hook: the strategy's own methods are guarded
            return

        def before(args: object) -> None:
            self.allows(f"torch.distributed.{getattr(args, 'name', 'collective')}")

        register(id(self), before)
