"""`application/problem+json` (RFC 9457): what every error looks like from outside."""

from __future__ import annotations

import math
from collections.abc import Mapping
from http import HTTPStatus

import orjson
from fastapi import Response
from pydantic import BaseModel, ConfigDict, Field

from perdure.errors import PerdureError
from perdure.observability.context import trace_id_of
from perdure.observability.tracing import current_trace_parent
from perdure.types import Json, JsonObject

MEDIA_TYPE = "application/problem+json"
TYPE_PREFIX = "urn:perdure:problem:"


class Problem(BaseModel):
    """The body of every error. `type` and `code` are stable; `detail` is for people."""

    model_config = ConfigDict(frozen=True, extra="allow")

    type: str = Field(examples=["urn:perdure:problem:agent_unknown"])
    title: str
    status: int
    detail: str
    code: str
    trace_id: str = Field(description="Names this request in logs and traces: 32 hexadecimal digits.")


def problem(status: int, code: str, detail: str, *, headers: Mapping[str, str] | None = None, **more: Json) -> Response:
    """A response that says what went wrong; `more` are further members."""
    content: JsonObject = {
        "type": TYPE_PREFIX + code,
        "title": _title(status),
        "status": status,
        "detail": detail,
        "code": code,
        "trace_id": trace_id_of(current_trace_parent()),
        **more,
    }
    return Response(
        orjson.dumps(content, default=str), status, media_type=MEDIA_TYPE, headers=dict(headers) if headers else None
    )


def problem_of(error: PerdureError) -> Response:
    """How `error` looks from outside. What is broken inside keeps its details for the log."""
    headers = {"Retry-After": _retry_after(error)} if error.retryable else {}
    more: JsonObject = (
        {"details": dict(error.details)} if error.details and error.status < HTTPStatus.INTERNAL_SERVER_ERROR else {}
    )
    return problem(error.status, error.code, error.message, headers=headers, **more)


def _retry_after(error: PerdureError) -> str:
    """Whole seconds; where nobody knows better, the least that can be said."""
    seconds = error.details.get("retry_after_s")
    return str(max(1, math.ceil(seconds))) if isinstance(seconds, int | float) else "1"


def _title(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Error"
