"""Whether an error says that memory is used up."""

from __future__ import annotations

import gc

import torch

__all__ = ["free_memory", "is_oom"]

OF_ALLOCATORS = (
    "not enough memory",  # "DefaultCPUAllocator: not enough memory: you tried to allocate"
    "can't allocate memory",  # the same on Linux
    "out of memory",  # of accelerators that have no error of their own
    "bad_alloc",  # of C++
    "cublas_status_alloc_failed",
    "cudnn_status_alloc_failed",
)


def is_oom(error: BaseException) -> bool:
    """Return whether `error` says that memory is used up.

    That is an error of an allocator: of CUDA and other accelerators, of Python, of PyTorch on the
    CPU, and of the libraries of CUDA that have workspaces.
    """
    if isinstance(error, (torch.cuda.OutOfMemoryError, MemoryError)):
        return True
    text = str(error).lower()
    return isinstance(error, RuntimeError) and any(part in text for part in OF_ALLOCATORS)


def free_memory(device: torch.device) -> None:
    """Give back what no tensor uses any more, where an allocator keeps it. Waits for the device."""
    empty_cache = getattr(getattr(torch, device.type, None), "empty_cache", None)
    if empty_cache is not None:
        gc.collect()  # an error may be in a cycle with the frames that have the tensors
        empty_cache()
