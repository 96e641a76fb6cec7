"""A failure of rank 0 to write, which all ranks of DDP raise after the same step."""

from __future__ import annotations

import json
import uuid
from typing import TYPE_CHECKING

from lightning_elche.distributed.control_store import ControlStore, default_store
from lightning_elche.exceptions import RankFailed

if TYPE_CHECKING:
    from lightning.pytorch import Trainer

__all__ = ["ToldFailure"]


class ToldFailure:
    """Tells ranks that wait for each other at each step that one of them ends.

    Rank 0 alone writes. Were it to raise at once, the others would wait in their next step for
    gradients that never come. So it says in the store at which step all raise: the one after the
    next average of gradients, which none of them can pass without it.

    Cost: two operations of the store after each step while a checkpoint is written, none else.

    Args:
        trainer: With several ranks; every rank makes this object at the same point.
    """

    def __init__(self, trainer: Trainer) -> None:
        self._trainer = trainer
        self._store = ControlStore(default_store(), trainer.strategy.broadcast(uuid.uuid4().hex))
        self._number = 0  # of the checkpoint that is being written
        self._is_pending = False
        self._raise_at = -1
        self._error: Exception | None = None

    def begin(self) -> None:
        """Take in that a checkpoint is being written."""
        self._number += 1
        self._is_pending = True

    def succeeded(self) -> None:
        """Say, on rank 0, that it is in its place."""
        self._tell("")

    def failed(self, error: Exception) -> None:
        """Say, on rank 0, that it could not be written; `check` raises the error."""
        self._error = error
        self._tell(str(error))

    def check(self) -> None:
        """Raise once it is time to; every rank calls this after each batch.

        Raises:
            RankFailed: On the other ranks.
            Exception: On rank 0, what it has failed with.
        """
        step = self._trainer.global_step
        if self._is_pending and self._raise_at < 0:
            self._look()
        if 0 <= self._raise_at <= step:
            raise self._error or RankFailed(0, self._cause)

    def raise_together(self) -> None:
        """Raise on all ranks if there is an error on rank 0; a broadcast.

        Raises:
            RankFailed: On the other ranks.
            Exception: On rank 0, what it has failed with.
        """
        error, self._error = self._error, None
        cause = self._trainer.strategy.broadcast("" if error is None else str(error))
        self._is_pending = False
        if error is not None:
            raise error
        if cause:
            raise RankFailed(0, cause)

    def _tell(self, cause: str) -> None:
        at = self._trainer.global_step + 1
        self._store.first_value(self._key, json.dumps({"cause": cause, "at": at}))

    def _look(self) -> None:
        text = self._store.value(self._key)
        if text is None:
            return
        told = json.loads(text)
        self._is_pending = False
        if told["cause"]:
            self._cause, self._raise_at = told["cause"], told["at"]

    @property
    def _key(self) -> str:
        return f"written/{self._number}"
