"""Which errors say that memory is used up."""

from __future__ import annotations

import pytest
import torch

from lightning_elche.ops.oom import free_memory, is_oom


def test_error_of_the_allocator_of_the_cpu_is_known() -> None:
    """As it is raised here, for more bytes than any machine has."""
    with pytest.raises(RuntimeError) as raised:
        torch.empty(1 << 60)
    assert is_oom(raised.value)


def test_error_of_python_is_known() -> None:
    """As it is raised here."""
    with pytest.raises(MemoryError) as raised:
        bytearray(1 << 62)
    assert is_oom(raised.value)


@pytest.mark.parametrize(
    "error",
    [
        torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
        RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 8 bytes."),
        RuntimeError("CUDA error: out of memory"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("MPS backend out of memory (MPS allocated: 1 GB)"),
    ],
)
def test_errors_of_other_machines_are_known(error: Exception) -> None:
    """By their type, or by their text."""
    assert is_oom(error)


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("mat1 and mat2 shapes cannot be multiplied (4x8 and 4x8)"),
        ValueError("out of memory"),
        OSError(12, "Cannot allocate memory"),
        KeyboardInterrupt(),
    ],
)
def test_other_errors_are_not_taken_for_it(error: BaseException) -> None:
    """Whatever their text says."""
    assert not is_oom(error)


def test_memory_is_freed_where_no_allocator_keeps_any() -> None:
    """Nothing is to be done on the CPU."""
    free_memory(torch.device("cpu"))
