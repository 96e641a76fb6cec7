"""From composed YAML nodes to plain values, with what must not be among them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import yaml

from lightning_elche.contracts.grammar.scalars import (
    BOOLEAN,
    NULL,
    NUMBER,
    STRING,
    Scalar,
    scalar_value,
)

__all__ = ["MOST_LEVELS", "MOST_NODES", "TreeProblem", "Values", "child_pointer"]

MOST_LEVELS = 100
MOST_NODES = 200_000
MOST_PROBLEMS = 100
OWN_TAGS = frozenset({STRING, NUMBER, BOOLEAN, NULL})
MERGE_KEY = "<<"


@dataclass(frozen=True, kw_only=True)
class TreeProblem:
    """Something that must not be in a contract.

    Attributes:
        rule: "CT-YAML" or "CT-NONFINITE".
        message: What it is.
        mark: Where it is.
        pointer: JSON pointer to it.
    """

    rule: str
    message: str
    mark: yaml.Mark
    pointer: str


class _Extent(NamedTuple):
    """How much of the document a node is, with aliases written out."""

    num_nodes: int
    num_levels: int


SCALAR = _Extent(1, 1)


class Values:
    """Builds values from nodes and collects problems, at most 100.

    A node that aliases refer to is built once and shared. Its size still counts at each alias, so
    that a few lines that stand for billions of nodes are refused in no time.

    Attributes:
        problems: What was found.
    """

    def __init__(self) -> None:
        self.problems: list[TreeProblem] = []
        self._values: dict[int, object] = {}
        self._extents: dict[int, _Extent] = {}
        self._open: set[int] = set()
        self._is_too_large = False

    def build(self, node: yaml.Node, pointer: str) -> object:
        """Return the value of `node`, which is at `pointer`."""
        if node.tag not in OWN_TAGS:
            self._report(node, pointer, f"tag {node.tag!r} must not be here; write a plain value")
        if isinstance(node, yaml.ScalarNode):
            return self._scalar(node, pointer)
        own = id(node)
        if own in self._values:
            return self._values[own]
        if own in self._open:
            self._report(node, pointer, "an anchor must not contain an alias to itself")
            return None
        self._open.add(own)
        value, children = self._collection(node, pointer)
        self._open.remove(own)
        self._values[own] = value
        self._measure(node, pointer, children)
        return value

    def _collection(self, node: yaml.Node, pointer: str) -> tuple[object, list[yaml.Node]]:
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, pointer)
        items = enumerate(node.value)
        return [self.build(one, child_pointer(pointer, i)) for i, one in items], node.value

    def _scalar(self, node: yaml.Node, pointer: str) -> Scalar:
        value = scalar_value(node.tag, node.value)
        if isinstance(value, float) and not math.isfinite(value):
            message = f"numbers must be finite, got {_clipped(node.value)}"
            self._report(node, pointer, message, rule="CT-NONFINITE")
        return value

    def _mapping(
        self, node: yaml.MappingNode, pointer: str
    ) -> tuple[dict[str, object], list[yaml.Node]]:
        """Return the values by the text of their keys: `on:` is "on", `1:` is "1"."""
        values: dict[str, object] = {}
        first: dict[str, yaml.Node] = {}
        for key, child in node.value:
            name = self._key(key, pointer)
            if name is None:
                continue
            if name in first:
                line, column = first[name].start_mark.line + 1, first[name].start_mark.column + 1
                message = f"key {_clipped(name)} is there already at line {line}, column {column}"
                self._report(key, pointer, message)
                continue
            first[name] = key
            values[name] = self.build(child, child_pointer(pointer, name))
        return values, [one for pair in node.value for one in pair]

    def _key(self, key: yaml.Node, pointer: str) -> str | None:
        if not isinstance(key, yaml.ScalarNode):
            self._report(key, pointer, "a key must be text, not a sequence or mapping")
            return None
        if key.tag not in OWN_TAGS:
            self._report(key, pointer, f"tag {key.tag!r} must not be here; write a plain key")
        if key.value == MERGE_KEY and not key.style:
            self._report(key, pointer, "merge keys must not be here; write the values out")
            return None
        return str(key.value)

    def _measure(self, node: yaml.Node, pointer: str, children: list[yaml.Node]) -> None:
        """Sum up `node` and report the first that is too large."""
        extents = [self._extents.get(id(child), SCALAR) for child in children]
        total = _Extent(
            1 + sum(one.num_nodes for one in extents),
            1 + max((one.num_levels for one in extents), default=0),
        )
        is_large = total.num_nodes > MOST_NODES or total.num_levels > MOST_LEVELS
        if is_large and not self._is_too_large:
            self._is_too_large = True
            is_deep = total.num_levels > MOST_LEVELS
            limit = f"{MOST_LEVELS} levels" if is_deep else f"{MOST_NODES} nodes"
            self._report(node, pointer, f"more than {limit}, with aliases written out")
        self._extents[id(node)] = total

    def _report(self, node: yaml.Node, pointer: str, message: str, rule: str = "CT-YAML") -> None:
        if len(self.problems) < MOST_PROBLEMS:
            problem = TreeProblem(rule=rule, message=message, mark=node.start_mark, pointer=pointer)
            self.problems.append(problem)


def child_pointer(pointer: str, step: str | int) -> str:
    """Return the JSON pointer to a child of the value at `pointer`."""
    return f"{pointer}/{str(step).replace('~', '~0').replace('/', '~1')}"


def _clipped(text: str) -> str:
    return repr(text if len(text) <= 60 else f"{text[:57]}...")
