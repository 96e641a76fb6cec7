"""The types of tensors: their codes in files, and tensors made of bytes."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lightning_elche.partition.image import HostTensor

__all__ = ["CODES", "code_and_shape", "host_to_tensor", "is_storable", "memory_of"]

CODES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint64: "U64",
    torch.uint32: "U32",
    torch.uint16: "U16",
    torch.uint8: "U8",
    torch.bool: "BOOL",
    torch.float8_e4m3fn: "F8_E4M3",
    torch.float8_e5m2: "F8_E5M2",
    torch.complex64: "C64",
}
TYPES = {code: dtype for dtype, code in CODES.items()}
# Types without a code, whose bytes are stored; with the names that they have in torch.
LOGICAL = {
    torch.complex32: "complex32",
    torch.complex128: "complex128",
    torch.float8_e4m3fnuz: "float8_e4m3fnuz",
    torch.float8_e5m2fnuz: "float8_e5m2fnuz",
}
LOGICAL_TYPES = {name: dtype for dtype, name in LOGICAL.items()}


def is_storable(tensor: Tensor) -> bool:
    """Return whether a tensor is dense memory of a known type, and of no subclass."""
    is_dense = tensor.layout is torch.strided and not (tensor.is_meta or tensor.is_quantized)
    is_known = tensor.dtype in CODES or tensor.dtype in LOGICAL
    return type(tensor) in (Tensor, nn.Parameter) and is_dense and is_known


def memory_of(tensor: Tensor) -> tuple[object, ...]:
    """Return what tied tensors have in common; those without elements have no memory to share."""
    flags = tensor.is_conj(), tensor.is_neg()
    shape = tuple(tensor.shape), tensor.stride(), tensor.dtype
    return tensor.data_ptr(), tensor.device, *shape, *flags


def code_and_shape(tensor: Tensor) -> tuple[str, tuple[int, ...], str | None]:
    """Return code, shape and logical type with which a tensor is stored."""
    code, shape = CODES.get(tensor.dtype), tuple(tensor.shape)
    if code is not None:
        return code, shape, None
    return "U8", (*shape, tensor.itemsize), LOGICAL[tensor.dtype]


def host_to_tensor(host: HostTensor) -> Tensor:
    """Return a tensor with memory of its own, which torch aligns: results may depend on that.

    Raises:
        ValueError: If this torch has no such type.
    """
    logical = host.logical_dtype
    dtype = TYPES[host.dtype] if logical is None else LOGICAL_TYPES.get(logical)
    if dtype is None:
        raise ValueError(f"tensor {host.name!r} is of type {logical!r}, which torch does not have")
    shape = host.shape if logical is None else host.shape[:-1]
    if not host.data.nbytes:
        return torch.empty(shape, dtype=dtype)
    return torch.frombuffer(host.data, dtype=torch.uint8).clone().view(dtype).reshape(shape)
