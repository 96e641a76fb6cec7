"""The tensors of a run whose fingerprints replay compares, in the order of the row space."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from lightning_elche.ops.tensor_types import CODES, memory_of
from lightning_elche.partition.image import ITEM_BYTES

__all__ = ["replay_tensors"]


def replay_tensors(
    state: Mapping[str, object],
    optimizers: Sequence[torch.optim.Optimizer] = (),
    *,
    module: nn.Module | None = None,
) -> dict[str, Tensor]:
    """Return tensors by their names with groups, as a checkpoint orders them.

    Cost: O(tensors) Python; nothing is copied.

    Args:
        state: The state of the model, by name.
        optimizers: Those whose states are wanted, too.
        module: Names the parameters of the optimizers; one that it does not know has a number.
    """
    model = {name: value for name, value in state.items() if isinstance(value, Tensor)}
    names = {} if module is None else {param: name for name, param in module.named_parameters()}
    tensors = _group("model", model)
    for index, optimizer in enumerate(optimizers):
        tensors |= _group(f"optimizer-{index}", _states(optimizer, names))
    return tensors


def _states(
    optimizer: torch.optim.Optimizer, names: Mapping[nn.Parameter, str]
) -> dict[str, Tensor]:
    params = [param for group in optimizer.param_groups for param in group["params"]]
    return {
        f"{names.get(param, index)}.{key}": value
        for index, param in enumerate(params)
        for key, value in optimizer.state.get(param, {}).items()
        if isinstance(value, Tensor)
    }


def _group(group: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return tensors in the order of their file, each memory once."""
    owners: dict[tuple[object, ...], str] = {}
    for name, tensor in tensors.items():
        owners.setdefault(_memory(name, tensor), name)
    stored = sorted(owners.values(), key=lambda name: _place(name, tensors[name]))
    return {f"{group}/{name}": tensors[name] for name in stored}


def _memory(name: str, tensor: Tensor) -> tuple[object, ...]:
    """Return what tied tensors have in common; those without bytes are not tied."""
    # `UnsupportedState` is for what has no memory; it is found later, with a name.
    if tensor.layout is not torch.strided or not tensor.nbytes or tensor.is_meta:
        return (name,)
    return memory_of(tensor)


def _place(name: str, tensor: Tensor) -> tuple[int, bytes]:
    code = CODES.get(tensor.dtype, "U8")  # of a type without a code the bytes are stored
    return -ITEM_BYTES[code], name.encode()
