"""The schema of the coordination file as the dataclasses have it; run this to write it anew."""

from __future__ import annotations

import dataclasses
import inspect
import json
import re
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from lightning_elche.coordination.config import SECRETS, VERSION, CoordinationConfig

SCHEMA = Path("lightning_elche/contracts/schemas/coordination-v1.schema.json")
NAMES = {str: "string", int: "integer", float: "number", bool: "boolean", type(None): "null"}
OPEN = {"additionalProperties": False, "patternProperties": {"^x-": {}}}


def schema() -> dict[str, Any]:
    """Return the schema that fits the dataclasses."""
    config = CoordinationConfig()
    told, defaults = descriptions(CoordinationConfig), config.to_dict()
    sections = {
        field.name: {
            "description": told[field.name],
            **section(type(getattr(config, field.name)), defaults[field.name]),
        }
        for field in dataclasses.fields(config)
    }
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "description": "How training runs are coordinated",
        "type": "object",
        "required": ["version"],
        **OPEN,
        "properties": {"version": {"const": VERSION}, **sections},
    }


def section(cls: type, defaults: Mapping[str, Any]) -> dict[str, Any]:
    hints, told = typing.get_type_hints(cls), descriptions(cls)
    options = {
        field.name: {
            "description": told[field.name],
            **form(hints[field.name]),
            "default": defaults[field.name],
        }
        for field in dataclasses.fields(cls)
        if field.name not in SECRETS
    }
    return {"type": "object", **OPEN, "properties": options}


def form(hint: Any) -> dict[str, Any]:
    """Return the schema of values of a type."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if hint in NAMES:
        return {"type": NAMES[hint]}
    if origin is Literal:
        return {"enum": list(arguments)}
    if origin in (typing.Union, types.UnionType):
        forms = [form(one) for one in arguments]
        kinds = [one.pop("type") for one in forms]
        rest = {key: value for one in forms for key, value in one.items()}
        return {"type": kinds, **rest}
    if issubclass(origin, Mapping):
        return {"type": "object", "patternProperties": {"": form(arguments[1])}}
    return {"type": "array", "items": form(arguments[0])}


def descriptions(cls: type) -> dict[str, str]:
    """Return what the docstring says of each argument."""
    block = re.split(r"\n\w+:\n", inspect.getdoc(cls) or "")[1]
    entries = re.split(r"\n    (?=\w+: )", f"\n{block}")[1:]
    return {
        name: re.sub(r"\s+", " ", text).strip()
        for name, text in (entry.split(": ", 1) for entry in entries)
    }


if __name__ == "__main__":
    SCHEMA.write_text(json.dumps(schema(), indent=2) + "\n", encoding="utf-8")
