"""JSON Schema, as much of it as the vectors need, so that reading them asks for no other package."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from minimal_nn import checks

_TYPES: dict[str, Callable[[Any], bool]] = {
    "object": lambda v: isinstance(v, dict),
    "array": lambda v: isinstance(v, list),
    "string": lambda v: isinstance(v, str),
    "boolean": lambda v: isinstance(v, bool),
    "null": lambda v: v is None,
    "number": lambda v: isinstance(v, (int, float)) and not isinstance(v, bool),
    "integer": lambda v: isinstance(v, (int, float)) and not isinstance(v, bool) and v == v // 1,
}
_KNOWN = {"type", "const", "enum", "pattern", "minimum", "maximum", "exclusiveMinimum", "required", "properties",
          "additionalProperties", "items", "anyOf", "$ref", "$defs", "$schema", "title", "description"}  # fmt: skip


def validate(name: str, value: Any, schema: Mapping[str, Any], root: Mapping[str, Any] | None = None) -> None:
    """Raise ValueError, naming the place, unless a value of json.loads is what a JSON Schema says.

    Keywords of draft 2020-12: type, const, enum, pattern (searched), minimum, maximum, exclusiveMinimum, required,
    properties, additionalProperties false, items, anyOf, and $ref to #/$defs; any other one is a ValueError.
    """
    root = schema if root is None else root
    if unknown := set(schema) - _KNOWN:
        raise ValueError(f"schema: expected keywords that are known, got {', '.join(sorted(unknown))}")
    if "$ref" in schema:
        validate(name, value, root["$defs"][schema["$ref"].rpartition("/")[2]], root)
    if "anyOf" in schema:
        _any_of(name, value, schema["anyOf"], root)
    if "type" in schema and not _TYPES[schema["type"]](value):
        raise ValueError(f"{name}: expected {schema['type']}, got {checks.describe(value)}")
    if "const" in schema and not _equal(value, schema["const"]):
        raise ValueError(f"{name}: expected {schema['const']!r}, got {checks.describe(value)}")
    if "enum" in schema and not any(_equal(value, known) for known in schema["enum"]):
        raise ValueError(f"{name}: expected one of {', '.join(schema['enum'])}, got {checks.describe(value)}")
    if isinstance(value, str) and "pattern" in schema and not re.search(schema["pattern"], value):
        raise ValueError(f"{name}: expected a match of {schema['pattern']}, got {checks.describe(value)}")
    if _TYPES["number"](value):
        _bounds(name, value, schema)
    if isinstance(value, list) and "items" in schema:
        for i, item in enumerate(value):
            validate(f"{name}[{i}]", item, schema["items"], root)
    if isinstance(value, dict):
        _members(name, value, schema, root)


def _any_of(name: str, value: Any, kinds: list[Any], root: Mapping[str, Any]) -> None:
    said = []
    for kind in kinds:
        try:
            return validate(name, value, kind, root)
        except ValueError as error:
            said.append(str(error).removeprefix(f"{name}: "))
    raise ValueError(f"{name}: {'; or '.join(said)}")


def _equal(value: Any, known: Any) -> bool:
    return isinstance(value, bool) == isinstance(known, bool) and value == known


def _bounds(name: str, value: float, schema: Mapping[str, Any]) -> None:
    if value < schema.get("minimum", value):
        raise ValueError(f"{name}: expected at least {schema['minimum']}, got {checks.describe(value)}")
    if value > schema.get("maximum", value):
        raise ValueError(f"{name}: expected at most {schema['maximum']}, got {checks.describe(value)}")
    if "exclusiveMinimum" in schema and value <= schema["exclusiveMinimum"]:
        raise ValueError(f"{name}: expected more than {schema['exclusiveMinimum']}, got {checks.describe(value)}")


def _members(name: str, value: dict[str, Any], schema: Mapping[str, Any], root: Mapping[str, Any]) -> None:
    known = schema.get("properties", {})
    missing = [key for key in schema.get("required", ()) if key not in value]
    extra = [key for key in value if key not in known] if schema.get("additionalProperties", True) is False else []
    if missing or extra:
        raise ValueError(
            f"{name}: missing {missing or 'none'}, not expected {checks.describe(extra) if extra else 'none'}"
        )
    for key, member in value.items():
        if key in known:
            validate(f"{name}[{key!r}]", member, known[key], root)
