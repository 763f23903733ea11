"""From a function's type hints to a JSON schema, and from the text a model wrote to values that fit it."""

from __future__ import annotations

import hashlib
import inspect
import json
import types
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model
from pydantic.fields import FieldInfo
from pydantic.json_schema import GenerateJsonSchema, PydanticJsonSchemaWarning

from perdure.errors import Invalid
from perdure.tools.context import ToolContext
from perdure.tools.result import ToolResult
from perdure.types import JsonObject

MAX_SHOWN_PROBLEMS = 8


class ProblemKind(StrEnum):
    """What was wrong with a call."""

    UNKNOWN_TOOL = "unknown_tool"
    BROKEN_JSON = "broken_json"
    NOT_AN_OBJECT = "not_an_object"
    WRONG_ARGUMENTS = "wrong_arguments"


@dataclass(frozen=True, slots=True)
class ToolProblem:
    """A call that cannot be made; `text` tells the model what to correct."""

    kind: ProblemKind
    name: str
    text: str

    def result(self) -> ToolResult:
        """The problem as the call's result."""
        return ToolResult(self.text, is_error=True)


@dataclass(frozen=True, slots=True)
class ParsedCall:
    """A call whose arguments fit. `arguments` are plain JSON with the defaults filled in; `digest` covers them."""

    name: str
    arguments: JsonObject
    values: Mapping[str, Any]
    digest: str


_CANONICAL = json.JSONEncoder(sort_keys=True, separators=(",", ":")).encode


def digest(name: str, arguments: JsonObject) -> str:
    """sha256 (hex) over canonical JSON of tool name and arguments; the order of keys does not matter."""
    return hashlib.sha256(_CANONICAL({"tool": name, "arguments": arguments}).encode()).hexdigest()


class _PlainSchema(GenerateJsonSchema):
    """Without the titles that pydantic makes of names: the model pays for every token and learns nothing."""

    def field_title_should_be_set(self, schema: Any) -> bool:
        return False


@dataclass(frozen=True, slots=True)
class Arguments:
    """What a function takes. `context_names` are the parameters that receive the `ToolContext`."""

    tool: str
    schema: JsonObject
    context_names: tuple[str, ...]
    _model: type[BaseModel]
    _fields: Mapping[str, str]

    def parse(self, text: str) -> ParsedCall | ToolProblem:
        """The values in `text`; strict about types, friendly to what JSON lacks (dates, ids, … from strings)."""
        try:
            filled = self._model.model_validate_json(text.strip() or "{}", strict=True)
            arguments = filled.model_dump(mode="json", by_alias=True, warnings="none")
            values = {name: getattr(filled, key) for name, key in self._fields.items()}
            return ParsedCall(self.tool, arguments, values, digest(self.tool, arguments))
        except ValidationError as error:
            return self._problem(error)
        except Exception as error:  # noqa: BLE001 - a user's own validator may raise anything; nothing has run yet
            return self._wrong(f"{type(error).__name__}: {error}")

    def _problem(self, error: ValidationError) -> ToolProblem:
        problems = error.errors(include_url=False, include_context=False)
        first = problems[0]
        if first["type"] == "json_invalid":
            text = f"The arguments of tool {self.tool!r} are not valid JSON ({first['msg']}). Send one JSON object."
            return ToolProblem(ProblemKind.BROKEN_JSON, self.tool, text)
        if not first["loc"] and first["type"] in ("model_type", "model_attributes_type"):
            text = f"The arguments of tool {self.tool!r} must be one JSON object. {self._parameters()}"
            return ToolProblem(ProblemKind.NOT_AN_OBJECT, self.tool, text)
        shown = [_described(problem["loc"], problem["type"], problem["msg"], problem["input"]) for problem in problems]
        more = len(shown) - MAX_SHOWN_PROBLEMS
        return self._wrong("; ".join(shown[:MAX_SHOWN_PROBLEMS]) + (f"; and {more} more" if more > 0 else ""))

    def _wrong(self, what: str) -> ToolProblem:
        text = (
            f"The arguments of tool {self.tool!r} do not fit: {what}. {self._parameters()} Correct them and call again."
        )
        writable = text.encode(errors="replace").decode()  # a validator's words may hold half a character
        return ToolProblem(ProblemKind.WRONG_ARGUMENTS, self.tool, writable)

    def _parameters(self) -> str:
        return f"Parameters: {', '.join(self._fields)}." if self._fields else "It takes no parameters: send {}."


def _described(loc: tuple[int | str, ...], kind: str, message: str, given: Any) -> str:
    where = ".".join(str(part) for part in loc) or "arguments"
    if kind == "missing":
        return f"{where} is missing"
    if kind == "extra_forbidden":
        return f"{where} is unknown"
    try:
        shown = json.dumps(given, default=str)
    except Exception:  # noqa: BLE001 - an author's validator may have made anything of what the model sent
        shown = f"a {type(given).__name__}"
    return f"{where}: {message} (got {shown if len(shown) <= 80 else shown[:80] + '…'})"


def arguments_of(tool: str, function: Callable[..., Any], descriptions: Mapping[str, str]) -> Arguments:
    """Read the signature of `function`. Raises: Invalid (code `tool_signature`), naming the parameter."""
    hints = _hints(tool, function)
    fields: dict[str, str] = {}
    definitions: dict[str, Any] = {}
    contexts: list[str] = []
    for name, parameter in inspect.signature(function).parameters.items():
        if name in hints and _is_context(hints[name]):
            contexts.append(name)
            continue
        hint = _checked(tool, name, parameter, hints)
        # A neutral field name with an alias, because a parameter may be called `schema`, `copy` or `_x`.
        key = f"p{len(fields)}"
        fields[name] = key
        definitions[key] = (_annotated(name, hint, descriptions.get(name)), _default(parameter))
    model = create_model("Arguments", __config__=ConfigDict(extra="forbid", allow_inf_nan=False), **definitions)
    return Arguments(tool, _schema(tool, model), tuple(contexts), model, fields)


def _hints(tool: str, function: Callable[..., Any]) -> dict[str, Any]:
    target: Any = function
    if not inspect.isroutine(target) and not isinstance(target, type):
        target = getattr(target, "func", None) or type(target).__call__
    try:
        return get_type_hints(target, include_extras=True)
    except NameError as error:
        raise Invalid(
            "tool_signature",
            f"tool {tool!r}: a type hint cannot be resolved ({error}); define the type at module level",
        ) from error


def _is_context(hint: Any) -> bool:
    if get_origin(hint) in (Union, types.UnionType):
        return ToolContext in get_args(hint)
    return hint is ToolContext


def _checked(tool: str, name: str, parameter: inspect.Parameter, hints: Mapping[str, Any]) -> Any:
    if parameter.kind not in (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY):
        raise Invalid("tool_signature", f"tool {tool!r}: parameter {name!r} must be an ordinary named parameter")
    if name not in hints:
        raise Invalid("tool_signature", f"tool {tool!r}: parameter {name!r} has no type hint; the model needs one")
    if isinstance(parameter.default, FieldInfo):
        raise Invalid("tool_signature", f"tool {tool!r}: write parameter {name!r} as Annotated[type, Field(...)]")
    return hints[name]


def _annotated(name: str, hint: Any, description: str | None) -> Any:
    own = getattr(hint, "__metadata__", ())
    if description and not any(isinstance(part, FieldInfo) and part.description for part in own):
        return Annotated[hint, Field(alias=name, description=description)]
    return Annotated[hint, Field(alias=name)]


def _default(parameter: inspect.Parameter) -> Any:
    return ... if parameter.default is inspect.Parameter.empty else parameter.default


def _schema(tool: str, model: type[BaseModel]) -> JsonObject:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", PydanticJsonSchemaWarning)
            schema: JsonObject = model.model_json_schema(schema_generator=_PlainSchema)
    except (PydanticJsonSchemaWarning, ValueError, TypeError) as error:
        raise Invalid("tool_signature", f"tool {tool!r} cannot be described as a JSON schema: {error}") from error
    schema.pop("title", None)
    schema.setdefault("properties", {})
    return schema
