"""JSON Schema: what a value must look like, and every place where it does not."""

from __future__ import annotations

import functools
import itertools
import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib import resources
from typing import Any, Protocol

from jsonschema import Draft7Validator
from jsonschema.exceptions import ValidationError
from jsonschema.validators import extend

__all__ = ["SCHEMAS", "SchemaProblem", "schema_problems", "schema_text"]

SCHEMAS = ("contract-v1", "coordination-v1", "epoch-metadata-v1", "gate-train-v1", "run-v1")
MOST_PROBLEMS = 100
LONGEST_VALUE = 60
TYPE_NAMES = {
    "array": "a list",
    "boolean": "true or false",
    "integer": "an integer",
    "null": "null",
    "number": "a number",
    "object": "a mapping",
    "string": "text",
}
EXPECTATIONS: dict[str, Callable[[Any], str]] = {
    "type": lambda types: _either(TYPE_NAMES[one] for one in _listed(types)),
    "enum": lambda values: f"one of {_either(_shown(one) for one in values)}",
    "const": lambda value: _shown(value),
    "minimum": lambda limit: f"at least {limit:g}",
    "maximum": lambda limit: f"at most {limit:g}",
    "exclusiveMinimum": lambda limit: f"above {limit:g}",
    "minLength": lambda _: "not empty",
    "minItems": lambda least: f"a list of at least {least}",
    "maxItems": lambda most: f"a list of at most {most}",
}


@dataclass(frozen=True, kw_only=True)
class SchemaProblem:
    """A value that is not as the schema wants it.

    Attributes:
        steps: Keys and indices from the root to the value.
        message: What is wrong.
        is_unknown_key: Whether the last step is a key that the schema does not know.
    """

    steps: tuple[str | int, ...]
    message: str
    is_unknown_key: bool = False


class _Validator(Protocol):
    """What is used of a validator; the classes that `extend` makes have no type."""

    def iter_errors(self, instance: object) -> Iterator[ValidationError]: ...
    def is_valid(self, instance: object) -> bool: ...
    def evolve(self, *, schema: Mapping[str, Any]) -> _Validator: ...
    def descend(
        self, instance: object, schema: Mapping[str, Any], path: int
    ) -> Iterator[ValidationError]: ...


def schema_text(name: str) -> str:
    """Return a schema as JSON.

    Args:
        name: One of `SCHEMAS`.

    Raises:
        ValueError: If there is none of this name.
    """
    if name not in SCHEMAS:
        raise ValueError(f"`name` must be one of {', '.join(SCHEMAS)}, got {name!r}.")
    folder = resources.files("lightning_elche") / "contracts" / "schemas"
    return (folder / f"{name}.schema.json").read_text(encoding="utf-8")


def schema_problems(value: object, *, schema: str) -> tuple[SchemaProblem, ...]:
    """Return where `value` is not as the schema wants it, at most 100 places.

    Args:
        value: Dicts, lists, strings, finite numbers, bools and `None`.
        schema: One of `SCHEMAS`.
    """
    errors = _validator(schema).iter_errors(value)
    return tuple(_problem(error) for error in itertools.islice(errors, MOST_PROBLEMS))


@functools.cache
def _validator(name: str) -> _Validator:
    validator: _Validator = _Draft7(json.loads(schema_text(name)))
    return validator


def _is_integer(_: object, value: object) -> bool:
    """Tell integers from `2.0`, which JSON Schema takes for one, and from bools."""
    return isinstance(value, int) and not isinstance(value, bool)


def _required(
    _: object, names: list[str], value: object, __: Mapping[str, Any]
) -> Iterator[ValidationError]:
    if isinstance(value, dict):
        yield from (ValidationError(f"`{name}` is missing") for name in names if name not in value)


def _no_others(
    _: object, __: object, value: object, schema: Mapping[str, Any]
) -> Iterator[ValidationError]:
    """Report each unknown key at its own place; this is how `additionalProperties` is used here."""
    if isinstance(value, dict):
        free = re.compile("|".join(schema["patternProperties"]))
        unknown = (key for key in value if key not in schema["properties"] and not free.match(key))
        yield from (ValidationError(f"`{_cut(key)}` is not known", path=[key]) for key in unknown)


def _items(
    validator: _Validator, each: Mapping[str, Any], value: object, schema: Mapping[str, Any]
) -> Iterator[ValidationError]:
    """Look at the items unless `maxItems` refuses the list: a hostile one would take seconds."""
    if isinstance(value, list) and len(value) <= schema.get("maxItems", len(value)):
        for index, item in enumerate(value):
            yield from validator.descend(item, each, path=index)


def _contains(
    validator: _Validator, wanted: Mapping[str, Any], value: object, _: Mapping[str, Any]
) -> Iterator[ValidationError]:
    """Look for an item; unlike the original with one validator for all of them."""
    one = validator.evolve(schema=wanted)
    if isinstance(value, list) and not any(one.is_valid(item) for item in value):
        yield ValidationError("none of the items is as wanted")


_Draft7 = extend(  # type: ignore[no-untyped-call]  # of jsonschema
    Draft7Validator,
    validators={
        "required": _required,
        "additionalProperties": _no_others,
        "items": _items,
        "contains": _contains,
    },
    type_checker=Draft7Validator.TYPE_CHECKER.redefine("integer", _is_integer),
)


def _problem(error: ValidationError) -> SchemaProblem:
    steps = tuple(error.absolute_path)
    keyword = str(error.validator)
    if keyword in ("required", "additionalProperties"):
        is_unknown_key = keyword == "additionalProperties"
        message = error.message if is_unknown_key or not steps else f"{error.message} here"
        return SchemaProblem(steps=steps, message=message, is_unknown_key=is_unknown_key)
    schema = error.schema if isinstance(error.schema, Mapping) else {}
    expected = schema.get("title") or EXPECTATIONS[keyword](error.validator_value)
    message = f"{_name(steps)} must be {expected}, got {_shown(error.instance)}"
    return SchemaProblem(steps=steps, message=message)


def _name(steps: tuple[str | int, ...]) -> str:
    """Return the last key with the indices behind it."""
    if not steps:
        return "the document"
    indices = list(itertools.takewhile(lambda step: isinstance(step, int), reversed(steps)))
    key = steps[-len(indices) - 1] if len(indices) < len(steps) else ""
    return f"`{_cut(str(key))}{''.join(f'[{index}]' for index in reversed(indices))}`"


def _shown(value: object) -> str:
    if isinstance(value, dict | list):
        return f"a {'mapping' if isinstance(value, dict) else 'list'} of {len(value)}"
    if isinstance(value, str):
        return f"the text {json.dumps(_cut(value), ensure_ascii=False)}"
    return _cut(json.dumps(value))


def _cut(text: str) -> str:
    return text if len(text) <= LONGEST_VALUE else f"{text[: LONGEST_VALUE - 3]}..."


def _listed(value: str | list[str]) -> list[str]:
    return [value] if isinstance(value, str) else value


def _either(names: Iterator[str]) -> str:
    return " or ".join(names)
