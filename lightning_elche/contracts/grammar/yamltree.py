"""From the bytes of a YAML file to its values, each with its place in the file."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import yaml

from lightning_elche.contracts.grammar.scalars import STRING, plain_tag
from lightning_elche.contracts.grammar.treevalues import (
    MOST_LEVELS,
    MOST_NODES,
    Values,
    child_pointer,
)
from lightning_elche.contracts.verdicts import Finding, Location, Severity
from lightning_elche.exceptions import ContractError

if TYPE_CHECKING:
    from yaml import SafeLoader as BaseLoader
else:
    BaseLoader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

__all__ = ["MOST_BYTES", "Document", "read_document"]

RULE = "CT-YAML"
MOST_BYTES = 4 * 2**20
FORBIDDEN = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


@dataclass(frozen=True, kw_only=True)
class Document:
    """A file of YAML.

    Attributes:
        path: As given.
        value: What it says, in dicts, lists, strings, numbers, bools and `None`.
        root: The same with places.
    """

    path: str
    value: object
    root: yaml.Node

    def locate(self, steps: Sequence[str | int], *, is_key: bool = False) -> Location:
        """Return the place of the value that `steps` of keys and indices lead to.

        Args:
            steps: From the root. Where one leads nowhere, the place before it is returned.
            is_key: Whether the place of the last key is wanted instead of its value.
        """
        node, pointer = self.root, ""
        mark = node.start_mark
        for step in steps:
            found = _child(node, step)
            if found is None:
                break
            key, node = found
            mark = (key if is_key and step is steps[-1] else node).start_mark
            pointer = child_pointer(pointer, step)
        return _location(self.path, mark, pointer)


class _Composer(BaseLoader):
    """Composes nodes within limits, tagged by what their scalars are in YAML 1.2."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.num_levels = self.num_nodes = 0

    def descend_resolver(self, current_node: yaml.Node | None, _: object) -> None:
        """Count; both composers call this for each node, but for aliases, before its children."""
        self.num_levels += 1
        self.num_nodes += 1
        is_deep = self.num_levels > MOST_LEVELS
        if is_deep or self.num_nodes > MOST_NODES:
            limit = f"{MOST_LEVELS} levels" if is_deep else f"{MOST_NODES} nodes"
            mark = None if current_node is None else current_node.start_mark
            raise yaml.MarkedYAMLError(problem=f"more than {limit}", problem_mark=mark)

    def ascend_resolver(self) -> None:
        """Leave the node."""
        self.num_levels -= 1

    def resolve(
        self, kind: type[yaml.Node], value: str | None, implicit: tuple[bool, bool] | bool
    ) -> str:
        """Return our own tag; any other tag in a node was written in the file."""
        if kind is not yaml.ScalarNode or value is None:
            return STRING
        is_plain = implicit[0] if isinstance(implicit, tuple) else implicit
        return plain_tag(value) if is_plain else STRING


def read_document(text: bytes, *, path: str) -> Document:
    """Read a file of YAML 1.2 with unique keys, without tags and merge keys.

    Args:
        text: The file.
        path: Its name, for findings.

    Raises:
        ContractError: If it is none; its findings say where.
    """
    root = _compose(_decode(text, path), path)
    values = Values()
    value = values.build(root, "")
    findings = tuple(
        _finding(problem.message, _location(path, problem.mark, problem.pointer), problem.rule)
        for problem in values.problems
    )
    if findings:
        raise _broken(*findings)
    return Document(path=path, value=value, root=root)


def _decode(data: bytes, path: str) -> str:
    """Return the text of a file without its byte order mark."""
    if len(data) > MOST_BYTES:
        at = Location(path=path, line=1, column=1)
        raise _broken(_finding(f"the file has more than {MOST_BYTES} bytes (4 MiB)", at))
    try:
        text = data.decode("utf-8").removeprefix("\ufeff")
    except UnicodeDecodeError as err:
        at = _place_of_byte(data, err.start, path)
        message = f"the file is not UTF-8: {err.reason} at byte {err.start}; save it as UTF-8"
        raise _broken(_finding(message, at)) from err
    found = FORBIDDEN.search(text)
    if found is not None:
        at = _place_of_byte(data, len(data) - len(text[found.start() :].encode()), path)
        message = f"character U+{ord(found[0]):04X} must not be in YAML"
        raise _broken(_finding(message, at))
    return text


def _compose(text: str, path: str) -> yaml.Node:
    composer = None
    try:
        composer = _Composer(text)
        root: yaml.Node | None = composer.get_single_node()
    except yaml.YAMLError as err:
        raise _broken(_of_yaml_error(err, path)) from err
    finally:
        if composer is not None:
            composer.dispose()
    if root is None:
        at = Location(path=path, line=1, column=1)
        raise _broken(_finding("the file is empty", at))
    return root


def _of_yaml_error(err: yaml.YAMLError, path: str) -> Finding:
    if not isinstance(err, yaml.MarkedYAMLError):
        return _finding(str(err), Location(path=path, line=1, column=1))
    message = ", ".join(part for part in (err.context, err.problem) if part)
    mark = err.problem_mark or err.context_mark
    if mark is None:
        return _finding(message, Location(path=path, line=1, column=1))
    if err.context_mark is not None and err.context_mark.line != mark.line:
        message = f"{message} (from line {err.context_mark.line + 1})"
    return _finding(message, _location(path, mark, None))


def _child(node: yaml.Node, step: str | int) -> tuple[yaml.Node, yaml.Node] | None:
    """Return the key and the value that `step` leads to; in a sequence both are the item."""
    if isinstance(node, yaml.MappingNode):
        return next(((key, value) for key, value in node.value if key.value == step), None)
    if isinstance(node, yaml.SequenceNode) and isinstance(step, int):
        return node.value[step], node.value[step]
    return None


def _location(path: str, mark: yaml.Mark, pointer: str | None) -> Location:
    return Location(path=path, line=mark.line + 1, column=mark.column + 1, pointer=pointer)


def _place_of_byte(data: bytes, offset: int, path: str) -> Location:
    """Return the place of a byte before which all is UTF-8."""
    start = data.rfind(b"\n", 0, offset) + 1
    column = len(data[start:offset].decode("utf-8").removeprefix("\ufeff")) + 1
    line = data.count(b"\n", 0, offset) + 1
    return Location(path=path, line=line, column=column, offset=offset)


def _finding(message: str, at: Location, rule: str = RULE) -> Finding:
    return Finding(rule=rule, severity=Severity.ERROR, message=message, at=at)


def _broken(*findings: Finding) -> ContractError:
    first = findings[0]
    at = first.at or Location(path="")
    return ContractError(f"{at.path}:{at.line}:{at.column}: {first.message}", findings)
