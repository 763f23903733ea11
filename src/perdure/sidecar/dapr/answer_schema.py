"""Which JSON schemas a conversation component carries to its model, and in what form.

Components understand types, properties, required, items, descriptions and lists of allowed texts; a `$ref`, a choice
between shapes or a map of names fails the call or is dropped without a word.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from perdure.types import JsonObject

_PLAIN = {"string", "number", "integer", "boolean", "null"}
_DEEPEST = 32
"""Schemas that refer to themselves never end; no sensible answer is nested deeper."""


class _NotCarriedError(Exception):
    """The schema says something that would be lost."""


def carried(schema: JsonObject) -> JsonObject | None:
    """`schema` in the words that components understand, or None when an essential part would be lost.

    Bounds of numbers, lengths and patterns are left out: whoever asked checks the answer anyway.
    """
    definitions = schema.get("$defs")
    try:
        return _Simplifier(definitions if isinstance(definitions, dict) else {}).object(schema)
    except _NotCarriedError:
        return None


@dataclass(frozen=True, slots=True)
class _Simplifier:
    definitions: Mapping[str, Any]

    def object(self, schema: Mapping[str, Any]) -> JsonObject:
        simple = self.part(schema, 0)
        if simple["type"] != "object":
            raise _NotCarriedError
        return simple

    def part(self, given: Any, depth: int) -> JsonObject:
        if not isinstance(given, Mapping) or depth > _DEEPEST:
            raise _NotCarriedError
        schema = self._resolved(given, depth)
        kind = schema.get("type")
        simple: JsonObject = {"type": kind}
        if description := schema.get("description"):
            simple["description"] = description
        if kind == "object":
            return {**simple, **self._members(schema, depth)}
        if kind == "array":
            return {**simple, "items": self.part(schema.get("items"), depth + 1)}
        if kind not in _PLAIN:
            raise _NotCarriedError
        allowed = [schema["const"]] if "const" in schema else schema.get("enum")
        if allowed is not None:
            if kind != "string":
                raise _NotCarriedError  # they would arrive as texts
            simple["enum"] = list(allowed)
        return simple

    def _resolved(self, schema: Mapping[str, Any], depth: int) -> Mapping[str, Any]:
        reference = schema.get("$ref")
        if reference is not None:
            target = self.definitions.get(str(reference).removeprefix("#/$defs/"))
            if not isinstance(target, Mapping) or depth > _DEEPEST:
                raise _NotCarriedError
            beside = {key: value for key, value in schema.items() if key != "$ref"}
            return self._resolved({**target, **beside}, depth + 1)
        if {"anyOf", "oneOf", "allOf"} & schema.keys():
            raise _NotCarriedError
        return schema

    def _members(self, schema: Mapping[str, Any], depth: int) -> JsonObject:
        properties = schema.get("properties")
        if not properties or isinstance(schema.get("additionalProperties"), Mapping):
            raise _NotCarriedError
        required = list(schema.get("required", ()))
        members: JsonObject = {
            name: self.part(each if name in required else _without_null(each), depth + 1)
            for name, each in properties.items()
        }
        return {"properties": members, "required": required, "additionalProperties": False}


def _without_null(schema: Any) -> Any:
    """What may be left out need not also be allowed to be null."""
    choices = schema.get("anyOf") if isinstance(schema, Mapping) else None
    if not isinstance(choices, list):
        return schema
    others = [each for each in choices if each != {"type": "null"}]
    if len(others) != 1:
        return schema
    return {**{key: value for key, value in schema.items() if key != "anyOf"}, **others[0]}
