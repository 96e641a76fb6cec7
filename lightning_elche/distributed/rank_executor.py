"""Lets each rank write its own rows of a checkpoint, in the background."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import torch.distributed as dist

__all__ = ["RankExecutor"]


class RankExecutor:
    """Saves checkpoints of all ranks, of which rank r writes the r-th part of the rows.

    Messages travel on a process group of their own, which only the thread that writes uses. There
    is one checkpoint at a time, so that ranks always wait for the same one.

    Args:
        timeout_s: How long a rank waits for the next message of another one.

    Attributes:
        rank: This rank.
        world_size: Number of ranks.
        num_hosts: Number of machines that they are on.
    """

    def __init__(self, *, timeout_s: float) -> None:
        timeout = timedelta(seconds=timeout_s)
        self.rank, self.world_size = dist.get_rank(), dist.get_world_size()
        ranks = list(range(self.world_size))
        self._group: dist.ProcessGroup | None = dist.new_group(
            ranks, backend="gloo", timeout=timeout
        )
        hosts = self.swap({"host": socket.gethostname()})
        self.num_hosts = len({str(one["host"]) for one in hosts})

    def swap(self, message: Mapping[str, Any], /) -> list[Mapping[str, Any]]:
        """Return the messages of all ranks, in rank order.

        Raises:
            ConnectionError: If a rank cannot be reached, now or before.
        """
        if self._group is None:
            raise ConnectionError("a rank could not be reached before")
        messages: list[Any] = [None] * self.world_size
        try:
            dist.all_gather_object(messages, dict(message), group=self._group)
        except RuntimeError as err:
            # A later message would be taken for the one that is missing.
            self.close()
            raise ConnectionError(f"a rank could not be reached: {err}") from err
        return messages

    def close(self) -> None:
        """Let go of the process group."""
        group, self._group = self._group, None
        if group is not None:
            dist.destroy_process_group(group)
