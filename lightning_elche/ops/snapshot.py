"""A copy of all that training changes, and its way back in place."""

from __future__ import annotations

import itertools
import pickle
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from lightning_elche.ops.blocks import Blocks, copy_all
from lightning_elche.ops.finite import checksum, read_together, totals
from lightning_elche.ops.random_state import random_state, set_random_state

__all__ = ["LiveState", "Snapshot", "Stateful"]


class Stateful(Protocol):
    """Tells its state, and takes one."""

    def state_dict(self) -> Any:  # noqa: ANN401  # whatever it is
        """Return the state."""
        ...

    def load_state_dict(self, state: Any, /) -> Any:  # noqa: ANN401
        """Continue from `state`."""
        ...


# Where a tensor is in the state of an optimizer: of which parameter, by which name.
Cell = tuple[torch.optim.Optimizer, Tensor, str]


def _is_implied(cell: Cell) -> bool:
    """Whether a tensor is finite if another one of the same parameter is.

    Of a gradient that is not finite, or whose square is not, Adam's second moment keeps the trace
    as long as the first one does.
    """
    optimizer, owner, key = cell
    return key == "exp_avg" and "exp_avg_sq" in optimizer.state[owner]


class Parts(NamedTuple):
    """The tensors that training changes."""

    named: dict[str, Tensor]
    cells: dict[Cell, Tensor]

    @property
    def nbytes(self) -> int:
        """Bytes that a copy takes."""
        return sum(tensor.nbytes for part in self for tensor in part.values())


@dataclass(frozen=True, kw_only=True)
class LiveState:
    """What training changes.

    Attributes:
        module: All of its parameters and buffers count, and its extra state.
        device: Whose random numbers are drawn.
        optimizers: Their states and the options of their groups.
        schedulers: Change those options.
        others: What else has a state, by name; small.
    """

    module: nn.Module
    device: torch.device
    optimizers: Sequence[torch.optim.Optimizer] = ()
    schedulers: Sequence[Stateful] = ()
    others: Mapping[str, Stateful] = field(default_factory=dict)

    def module_tensors(self) -> dict[str, Tensor]:
        """Return parameters and buffers by name, each once.

        Raises:
            TypeError: If one is sparse.
        """
        module = self.module
        named = itertools.chain(module.named_parameters(), module.named_buffers())
        return {name: _once(name, tensor) for name, tensor in named}

    def cells(self) -> dict[Cell, Tensor]:
        """Return the tensors in the states of optimizers."""
        return {
            (optimizer, owner, key): value
            for optimizer in self.optimizers
            for owner, state in optimizer.state.items()
            for key, value in state.items()
            if isinstance(value, Tensor)
        }

    def parts(self) -> Parts:
        """Return all tensors. Cost: O(tensors) Python."""
        return Parts(self.module_tensors(), self.cells())

    def sums(self, *, without: Iterable[str] = ()) -> list[Tensor]:
        """Return numbers that are finite if all tensors are.

        Args:
            without: Names of those that need not be.
        """
        named, cells = self.parts()
        kept = [named[name] for name in named.keys() - set(without)]
        return totals([*kept, *(value for cell, value in cells.items() if not _is_implied(cell))])

    def infinite_buffers(self) -> frozenset[str]:
        """Return the buffers that hold what is not finite, such as a mask. Reads each."""
        named = {name: _once(name, buffer) for name, buffer in self.module.named_buffers()}
        sums = {name: read_together(totals([buffer])) for name, buffer in named.items()}
        return frozenset(name for name, read in sums.items() if not all(map(_is_finite, read)))


class Snapshot:
    """Keeps one state at a time; its memory is used again for the next one.

    Tensors are copied, all else is encoded. Restoring copies into the very tensors that training
    uses; what has come into being since is deleted, and so are gradients.

    Args:
        unchecked: Names of buffers that need not be finite.

    Attributes:
        sums: Finite, once read, if the tensors are.
    """

    def __init__(self, *, unchecked: frozenset[str] = frozenset()) -> None:
        self.sums: list[Tensor] = []
        self._unchecked = unchecked
        self._blocks = Blocks()
        self._names: list[str] = []
        self._cells: list[Cell] = []
        self._devices: list[torch.device] = []
        self._owners: list[list[Tensor]] = []
        self._rest = b""

    @property
    def nbytes(self) -> int:
        """Bytes that are held."""
        return self._blocks.nbytes + len(self._rest)

    @torch.no_grad()
    def put(self, live: LiveState, parts: Parts | None = None) -> None:
        """Take a copy of `live`.

        Cost: one pass that copies, one that sums, and O(tensors) Python.

        Args:
            live: What to copy.
            parts: Its tensors, if they are at hand.
        """
        named, cells = live.parts() if parts is None else parts
        tensors = [*named.values(), *cells.values()]
        is_kept = [
            *(name not in self._unchecked for name in named),
            *(not _is_implied(cell) for cell in cells),
        ]
        is_checked = [
            keeps and (tensor.is_floating_point() or tensor.is_complex())
            for keeps, tensor in zip(is_kept, tensors, strict=True)
        ]
        self._names, self._cells = list(named), list(cells)
        self._owners = [list(optimizer.state) for optimizer in live.optimizers]
        self._devices = [tensor.device for tensor in tensors]
        sums = self._blocks.load(tensors, is_checked)
        self._rest = pickle.dumps(_rest_of(live), protocol=pickle.HIGHEST_PROTOCOL)
        pairs = zip(tensors, is_checked, strict=True)
        on_cuda = [tensor for tensor, checks in pairs if checks and tensor.is_cuda]
        self.sums = checksum(sums) + totals(on_cuda)

    @torch.no_grad()
    def restore(self, live: LiveState, *, keep_schedules: bool = False) -> None:
        """Put the copy back.

        Args:
            live: What it was taken of.
            keep_schedules: Leave schedulers and the options of optimizers as they are.
        """
        rest = _decoded(self._rest)
        self._restore_module(live.module, live.module_tensors())
        self._restore_optimizers(live, rest["values"])
        if not keep_schedules:
            _restore_options(live.optimizers, rest["options"])
            for scheduler, state in zip(live.schedulers, rest["schedulers"], strict=True):
                scheduler.load_state_dict(state)
        for name, state in rest["extra"].items():
            live.module.get_submodule(name).set_extra_state(state)
        for name, state in rest["others"].items():
            live.others[name].load_state_dict(state)
        set_random_state(rest["random"], live.device)
        for parameter in live.module.parameters():
            parameter.grad = None

    def _restore_module(self, module: nn.Module, present: Mapping[str, Tensor]) -> None:
        targets, sources = [], []
        for name, view, device in zip(self._names, self._blocks.views, self._devices, strict=False):
            target = present.get(name)
            if target is None or not _fits(view, target):
                _assign(module, name, view.to(device, copy=True))
            else:
                targets.append(target)
                sources.append(view)
        copy_all(targets, sources)
        for name in present.keys() - set(self._names):
            if not isinstance(present[name], nn.Parameter):
                _assign(module, name, None)

    def _restore_optimizers(self, live: LiveState, values: Sequence[Sequence[Any]]) -> None:
        present = live.cells()
        for optimizer, owners, states in zip(live.optimizers, self._owners, values, strict=True):
            optimizer.state.clear()
            optimizer.state.update(zip(owners, states, strict=True))
        targets, sources = [], []
        first = len(self._names)
        kept = zip(self._cells, self._blocks.views[first:], self._devices[first:], strict=True)
        for cell, view, device in kept:
            target = present.get(cell)
            if target is None or not _fits(view, target):
                target = view.to(device, copy=True)
            else:
                targets.append(target)
                sources.append(view)
            optimizer, owner, key = cell
            optimizer.state[owner][key] = target
        copy_all(targets, sources)


def _decoded(rest: bytes) -> dict[str, Any]:
    with warnings.catch_warnings():
        # Before torch 2.6, of every tensor that is unpickled; these bytes are our own.
        warnings.filterwarnings("ignore", "You are using `torch.load`", FutureWarning)
        decoded: dict[str, Any] = pickle.loads(rest)
    return decoded


def _rest_of(live: LiveState) -> dict[str, Any]:
    """Return what is no tensor, or small."""
    return {
        "values": [
            [
                {key: value for key, value in state.items() if not isinstance(value, Tensor)}
                for state in optimizer.state.values()
            ]
            for optimizer in live.optimizers
        ],
        "options": [
            [
                {key: value for key, value in group.items() if key != "params"}
                for group in optimizer.param_groups
            ]
            for optimizer in live.optimizers
        ],
        "schedulers": [scheduler.state_dict() for scheduler in live.schedulers],
        "extra": {
            name: module.get_extra_state()
            for name, module in live.module.named_modules()
            if type(module).get_extra_state is not nn.Module.get_extra_state
        },
        "others": {name: other.state_dict() for name, other in live.others.items()},
        "random": random_state(live.device),
    }


def _restore_options(
    optimizers: Sequence[torch.optim.Optimizer], options: Sequence[Sequence[dict[str, Any]]]
) -> None:
    for optimizer, saved_groups in zip(optimizers, options, strict=True):
        for group, saved in zip(optimizer.param_groups, saved_groups, strict=False):
            for key, value in saved.items():
                if isinstance(value, Tensor) and isinstance(group.get(key), Tensor):
                    group[key].copy_(value)
                else:
                    group[key] = value


def _assign(module: nn.Module, name: str, value: Tensor | None) -> None:
    path, _, leaf = name.rpartition(".")
    owner = module.get_submodule(path)
    present = getattr(owner, leaf, None)
    if isinstance(present, nn.Parameter) and value is not None:
        present.data = value
    else:
        setattr(owner, leaf, value)


def _fits(view: Tensor, target: Tensor) -> bool:
    return view.shape == target.shape and view.dtype == target.dtype


def _is_finite(number: float) -> bool:
    return number - number == 0.0


def _once(name: str, tensor: Tensor) -> Tensor:
    """Return the part of an expanded tensor that has memory of its own."""
    if tensor.layout is not torch.strided:
        raise TypeError(f"`{name}` must be a dense tensor, got {tensor.layout}.")
    for dim, stride in enumerate(tensor.stride()):
        if stride == 0 and tensor.shape[dim] > 1:
            tensor = tensor.narrow(dim, 0, 1)
    return tensor
