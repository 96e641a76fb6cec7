"""The digest of optimizer states: equal for equal values, another for any other."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from lightning_elche.ops.state_digest import (
    ALGORITHM,
    optimizer_state_digest,
    recompute_optimizer_state_sha,
)

EMPTY = "f53ba31c8057d2b02790717bea47f928fa80373cce72dc32b1dd63b890e27e28"


def adam_states(seed: int = 0) -> list[dict[str, Any]]:
    torch.manual_seed(seed)
    layer = torch.nn.Linear(3, 2)
    optimizer = torch.optim.AdamW(layer.parameters())
    layer(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    return [optimizer.state_dict()]


def test_digest_of_plain_sgd_is_known() -> None:
    """The format is fixed: a file written today can be checked by any later release."""
    states = [{"state": {}, "param_groups": [{"lr": 0.1, "params": [0]}]}]
    assert optimizer_state_digest(states) == (EMPTY, 0)


def test_digest_does_not_depend_on_the_order_of_keys() -> None:
    """Nor on whether they are dictionaries or what a checkpoint gives back."""
    states = adam_states()
    turned = [{key: states[0][key] for key in reversed(states[0])}]
    assert optimizer_state_digest(turned) == optimizer_state_digest(states)


def test_integer_keys_are_ordered_by_value() -> None:
    """Parameter 10 comes after parameter 9."""
    forwards = {index: index for index in range(12)}
    backwards = dict(reversed(forwards.items()))
    assert optimizer_state_digest(backwards) == optimizer_state_digest(forwards)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ([0.1], [0.2]),
        ([1], [1.0]),
        ([1], [True]),
        ([None], [""]),
        ([torch.ones(2)], [torch.ones(2, 1)]),
        ([torch.ones(2)], [torch.ones(2, dtype=torch.float64)]),
        ([torch.zeros(2)], [torch.tensor([0.0, -0.0])]),
        ([[1], 2], [1, [2]]),
    ],
)
def test_digest_differs_where_a_value_or_type_does(one: Any, other: Any) -> None:
    """To the last bit, and to the place where it stands."""
    assert optimizer_state_digest(one) != optimizer_state_digest(other)


def test_size_is_that_of_the_tensors() -> None:
    """Step, first and second moment of eight values: 2 * 4 + 16 * 4 bytes."""
    assert optimizer_state_digest(adam_states())[1] == 72


def test_unknown_leaf_is_refused_by_its_path() -> None:
    """Silence would leave it out of the digest."""
    with pytest.raises(TypeError, match="at 0/state"):
        optimizer_state_digest([{"state": object()}])


def test_digest_is_found_again_in_a_checkpoint(tmp_path: Path) -> None:
    """Whoever has the file can check what was written beside it."""
    states = adam_states()
    torch.save({"optimizer_states": states}, tmp_path / "a.ckpt")
    found = recompute_optimizer_state_sha(tmp_path / "a.ckpt", ALGORITHM)
    assert found == optimizer_state_digest(states)[0]


@pytest.mark.parametrize("content", [b"", b"no checkpoint", b"PK\x03\x04"])
def test_damaged_checkpoint_has_no_digest(content: bytes, tmp_path: Path) -> None:
    """It is not known then, which is no match."""
    (tmp_path / "a.ckpt").write_bytes(content)
    assert recompute_optimizer_state_sha(tmp_path / "a.ckpt", ALGORITHM) is None


def test_unknown_algorithm_has_no_digest(tmp_path: Path) -> None:
    """A newer release may have written it."""
    torch.save({"optimizer_states": []}, tmp_path / "a.ckpt")
    assert recompute_optimizer_state_sha(tmp_path / "a.ckpt", "elche-state-v9") is None
