"""CloudEvents 1.0 as a sidecar delivers them, as messages."""

from __future__ import annotations

from typing import Any

import orjson
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from perdure.observability.context import is_trace_parent
from perdure.sidecar.ports import Envelope


class Malformed(Exception):
    """Not a message; repeating its delivery would not make it one."""


class _CloudEvent(BaseModel):
    model_config = ConfigDict(strict=True, extra="allow")

    id: str = Field(min_length=1, max_length=512)
    source: str = Field(min_length=1, max_length=2048)
    type: str = Field(min_length=1, max_length=512)
    data: Any = None
    traceparent: str = ""
    traceid: str = ""


NOT_EXTENSIONS = frozenset(
    {"specversion", "topic", "pubsubname", "datacontenttype", "data_base64", "time", "tracestate", "expiration"}
    | {"subject", "dataschema"}
)


def parse_cloud_event(body: bytes, topic: str) -> Envelope:
    """The message that arrived for `topic`. Raises: Malformed."""
    try:
        event = _CloudEvent.model_validate(orjson.loads(body))
    except orjson.JSONDecodeError as error:
        raise Malformed(f"not JSON: {error}") from error
    except ValidationError as error:
        wrong = "; ".join(f"{each['loc']}: {each['msg']}" for each in error.errors(include_input=False)[:3])
        raise Malformed(f"not a CloudEvent: {wrong}") from error
    extra = event.model_extra or {}
    trace = next((each for each in (event.traceparent, event.traceid) if is_trace_parent(each)), "")
    return Envelope(
        id=event.id,
        source=event.source,
        topic=topic,
        data=event.data,
        type=event.type,
        trace_parent=trace,
        extensions={k: v for k, v in extra.items() if isinstance(v, str) and k not in NOT_EXTENSIONS},
    )
