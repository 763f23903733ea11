"""Answers of a given shape: the schema for the model, and the check of what it said."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from pydantic import TypeAdapter, ValidationError
from pydantic.errors import PydanticUserError
from pydantic_core import from_json

from perdure.errors import Invalid
from perdure.types import JsonObject

T = TypeVar("T")

_FENCE = re.compile(r"^\s*```[\w-]*\s*\n(.*?)\n?\s*```\s*$", re.DOTALL)
_WRAPPED = "value"

MAX_PROBLEM_CHARS = 2000
"""What was wrong with an answer may quote all of it; the model needs the beginning."""


@dataclass(frozen=True, slots=True)
class Misfit:
    """The answer does not have the shape; `text` tells the model what to correct."""

    text: str


class AnswerShape(Generic[T]):
    """The shape of a pydantic model, dataclass, TypedDict or any other type pydantic knows.

    A type whose JSON is no object is asked for as `{"value": …}`, because providers want an object.

    Raises: Invalid (code `answer_type_wrong`) for a type that has no JSON schema.
    """

    def __init__(self, type_: type[T]) -> None:
        self.name: str = getattr(type_, "__name__", "answer")
        try:
            self._adapter: TypeAdapter[T] = TypeAdapter(type_)
            schema = self._adapter.json_schema()
        except PydanticUserError as error:
            raise Invalid("answer_type_wrong", f"answer type {type_!r} has no JSON schema: {error}") from error
        self._wrapped = not _is_object(schema)
        self.schema: JsonObject = _wrap(schema) if self._wrapped else schema

    def parse(self, text: str) -> T | Misfit:
        """The value in an answer, with or without a Markdown fence around it."""
        fenced = _FENCE.match(text)
        said = fenced[1] if fenced else text
        try:
            return self._wrapped_value(said) if self._wrapped else self._adapter.validate_json(said)
        except ValidationError as error:
            return self._misfit("; ".join(_described(each) for each in error.errors(include_url=False)[:8]))
        except Exception as error:  # noqa: BLE001 - an author's own validator may raise anything; the model can correct it
            return self._misfit(f"{type(error).__name__}: {error}")

    def _wrapped_value(self, said: str) -> T | Misfit:
        try:
            value = from_json(said)[_WRAPPED]
        except (ValueError, KeyError, TypeError) as error:
            return self._misfit(f"it must be a JSON object with the key {_WRAPPED!r} ({error})")
        return self._adapter.validate_python(value)

    def _misfit(self, what: str) -> Misfit:
        schema = json.dumps(self.schema, separators=(",", ":"))
        what = (
            what[:MAX_PROBLEM_CHARS].encode(errors="replace").decode()
        )  # it may quote anything, also half a character
        return Misfit(f"Your answer does not fit: {what}. Answer again with JSON only, following this schema: {schema}")


def _is_object(schema: JsonObject) -> bool:
    reference = schema.get("$ref")
    definitions = schema.get("$defs")
    if isinstance(reference, str) and isinstance(definitions, dict):
        target = definitions.get(reference.rsplit("/", 1)[-1])
        return isinstance(target, dict) and target.get("type") == "object"
    return schema.get("type") == "object"


def _wrap(schema: JsonObject) -> JsonObject:
    definitions = schema.pop("$defs", None)
    whole: JsonObject = {
        "type": "object",
        "properties": {_WRAPPED: schema},
        "required": [_WRAPPED],
        "additionalProperties": False,
    }
    return {**whole, "$defs": definitions} if definitions else whole


def _described(problem: Any) -> str:
    where = ".".join(str(part) for part in problem["loc"])
    return f"{where}: {problem['msg']}" if where else str(problem["msg"])
