"""The verb `diff` of `elche checkpoint`."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from lightning_elche.cli.main import main
from lightning_elche.partition.image import HostTensor
from tests.partition.states import make_snapshot, make_store, make_tensor


def save(root: Path, values: list[float], *, step: int = 1, **options: object) -> str:
    tensor = HostTensor.of("w", np.array(values, dtype=np.float32))
    snapshot = make_snapshot(step, groups={"model": [tensor]}, **options)
    return str(make_store(root).save(snapshot).path)


def test_first_element_count_and_distance_are_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of each tensor, then the paths of the tree; exit code 1."""
    a = save(tmp_path / "a", [1.0, 2.0, 3.0])
    b = save(tmp_path / "b", [1.0, 2.5, 1.0], tree=b'{"epoch":2}')
    assert main(["checkpoint", "diff", a, b]) == 1
    assert capsys.readouterr().out == (
        "DIFFERS  model/w: 2 elements differ, the first is element 1, in row 0, "
        "largest distance 2.0\nDIFFERS  tree /epoch\n"
    )


def test_equal_checkpoints_are_exit_code_zero(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Although they were made by other runs."""
    a, b = save(tmp_path / "a", [1.0]), save(tmp_path / "b", [1.0], run_id="other")
    assert main(["checkpoint", "diff", a, b]) == 0
    assert capsys.readouterr().out == f"EQUAL  {a} {b}\n"


def test_tensor_that_only_one_has_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """In strict JSON, a NaN as a text."""
    a = save(tmp_path / "a", [1.0])
    extra = {"model": [make_tensor("w", float("nan"), size=1), make_tensor("v", 1.0)]}
    b = make_store(tmp_path / "b").save(make_snapshot(1, groups=extra)).path
    assert main(["checkpoint", "diff", a, str(b), "--format", "json"]) == 1
    found = json.loads(capsys.readouterr().out)["tensors"]
    assert [(one["name"], one["reason"], one["max_abs"]) for one in found] == [
        ("model/w", "values", "nan"),
        ("model/v", "only in B", None),
    ]


def test_roots_stand_for_their_newest_good_ones(tmp_path: Path) -> None:
    """Here of another step with the same values."""
    save(tmp_path / "a", [1.0], step=1)
    save(tmp_path / "a", [2.0], step=2, tree=b"{}")
    save(tmp_path / "b", [2.0], step=3, tree=b"{}")
    assert main(["checkpoint", "diff", str(tmp_path / "a"), str(tmp_path / "b")]) == 0


def test_corrupt_checkpoint_is_not_a_different_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit code 3: nothing is known of its values."""
    a, b = save(tmp_path / "a", [1.0]), save(tmp_path / "b", [1.0])
    (Path(b) / "model.safetensors").write_bytes(b"")
    assert main(["checkpoint", "diff", a, b]) == 3
    assert f"checkpoint {b} is incomplete" in capsys.readouterr().err
