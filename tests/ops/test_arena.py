"""Memory for a copy of a state."""

from __future__ import annotations

import torch

from lightning_elche.ops.arena import Arena
from lightning_elche.ops.tensor_state import GroupTensor


def groups(*sizes: int) -> dict[str, list[GroupTensor]]:
    tensors = [torch.full((size,), float(size)) for size in sizes]
    return {"model": [GroupTensor(name=str(t.numel()), tensor=t) for t in tensors]}


def test_copy_does_not_follow_training() -> None:
    """It holds what was there."""
    arena, state = Arena(), groups(3)
    copied = arena.put(state)["model"][0]
    state["model"][0].tensor.zero_()
    assert copied.array().tolist() == [3.0, 3.0, 3.0]


def test_memory_is_used_again() -> None:
    """The second copy is where the first was."""
    arena = Arena()
    places = [arena.put(groups(3, 40))["model"][1].array().ctypes.data for _ in range(2)]
    assert places[0] == places[1]
    assert arena.nbytes == 64 + 192


def test_other_shapes_get_other_memory() -> None:
    """What was added later is copied, too."""
    arena = Arena()
    arena.put(groups(3))
    copied = arena.put(groups(3, 5))["model"]
    assert [one.array().tolist() for one in copied] == [[3.0] * 3, [5.0] * 5]


def test_only_the_wanted_bytes_are_copied() -> None:
    """The rest of the memory is left as it is."""
    arena, state = Arena(), groups(4)
    place = arena.put(state)["model"][0]
    state["model"][0].tensor.zero_()
    arena.load(state, {("model", "4"): [(4, 8), (12, 16)]})
    assert place.array().tolist() == [4.0, 0.0, 4.0, 0.0]
