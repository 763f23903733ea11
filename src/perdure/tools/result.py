"""What a tool returned, as text for the model."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Any

from pydantic_core import to_json

MAX_MESSAGE_CHARS = 2000
"""An exception's message can hold a whole response body; the model needs its beginning."""


@dataclass(frozen=True, slots=True)
class ToolResult:
    """`text` is what the tool returned when it returned a str, else its JSON."""

    text: str
    is_error: bool = False


def result_of(value: Any) -> ToolResult:
    """`value` for the model: a str as it is; pydantic models, dataclasses and everything JSON can hold as JSON.

    What cannot be written becomes an error result that says so; the tool has run all the same.
    """
    try:
        if isinstance(value, str) and not isinstance(value, Enum):
            value.encode()
            return ToolResult(value)
        return ToolResult(to_json(value, inf_nan_mode="strings").decode())
    except Exception as error:  # noqa: BLE001 - a user's serializer may raise anything, and the effect has happened
        reason = _shortened(str(error))
        text = f"The tool ran, but its result (a {type(value).__name__}) cannot be written as JSON: {reason}"
        return ToolResult(text, is_error=True)


def failure_of(error: BaseException) -> ToolResult:
    """The type and message of what a tool raised; never the traceback."""
    return ToolResult(_shortened(f"{type(error).__name__}: {error}"), is_error=True)


def _shortened(text: str) -> str:
    clean = text.encode(errors="replace").decode()
    return clean if len(clean) <= MAX_MESSAGE_CHARS else clean[:MAX_MESSAGE_CHARS] + " …"
