"""`elche checkpoint diff`: where two checkpoints differ."""

from __future__ import annotations

import argparse
from collections.abc import Iterator

from lightning_elche.cli.checkpoint_places import checkpoint_at
from lightning_elche.cli.outcome import Line, Outcome, Problem
from lightning_elche.partition.diff import TensorDiff, diff_checkpoints
from lightning_elche.partition.fs import LocalFs

__all__ = ["diff"]

DIFFER = 1


def diff(options: argparse.Namespace) -> Outcome:
    """Return the tensors and the paths of the tree that differ.

    Raises:
        CheckpointError: If one of them is not right.
        OSError: If a folder cannot be read.
    """
    fs = LocalFs()
    path_a, path_b = (checkpoint_at(fs, one, options) for one in (options.path_a, options.path_b))
    found = diff_checkpoints(fs, path_a, path_b)
    differences = [*map(_of_tensor, found.tensors), *_of_tree(found.tree_paths)]
    lines = [Line(text, "DIFFERS") for _, text in differences]
    return Outcome(
        lines=tuple(lines) or (Line(f"{path_a} {path_b}", "EQUAL", is_calm=True),),
        data={
            "a": str(path_a),
            "b": str(path_b),
            "tensors": [vars(one) for one in found.tensors],
            "tree_paths": found.tree_paths,
        },
        problems=tuple(Problem(str(path_b), kind, text) for kind, text in differences),
        exit_code=0 if found.is_empty else DIFFER,
    )


def _of_tensor(one: TensorDiff) -> tuple[str, str]:
    if one.reason != "values":
        return "tensor", f"{one.name}: {one.reason}"
    largest = "" if one.max_abs is None else f", largest distance {one.max_abs!r}"
    place = f"the first is element {one.element}, in row {one.row}"
    return "tensor", f"{one.name}: {one.count} elements differ, {place}{largest}"


def _of_tree(paths: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    return (("tree", f"tree {path}") for path in paths)
