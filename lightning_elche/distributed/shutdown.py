"""The end of process groups, which must come before the end of the interpreter."""

from __future__ import annotations

import atexit

import torch.distributed as dist

__all__ = ["destroy_groups_at_exit", "leave_groups_at_exit"]


def destroy_groups_at_exit() -> None:
    """Destroy all process groups when the process exits, if they still exist then.

    A thread of Gloo that lets go of its last tensor while the interpreter is torn down asks for the
    GIL, and aborts the process: PyTorch issue 190489. Lightning destroys groups for NCCL only.
    """
    atexit.register(_destroy_groups)


def leave_groups_at_exit() -> None:
    """Take that back: after a failure a collective may be pending, which would hold up the exit."""
    atexit.unregister(_destroy_groups)


def _destroy_groups() -> None:
    if dist.is_initialized():
        dist.destroy_process_group()
