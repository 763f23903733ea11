"""Between perdure's words and those of the Chat Completions protocol."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Any

from perdure.clock import Clock
from perdure.errors import Failed, PerdureError, Transient
from perdure.llm.model import ModelRequest
from perdure.sidecar.ports import ChatCall, ChatMessage, ChatReply, ChatTool

_REPEATABLE = frozenset({408, 409, 425, 429})


def parameters(model: str, request: ModelRequest) -> dict[str, Any]:
    """The body of the call, without what is not wanted."""
    body: dict[str, Any] = {"model": model, "messages": [_message(each) for each in request.messages]}
    if request.tools:
        body["tools"] = [_tool(each) for each in request.tools]
    if request.temperature is not None:
        body["temperature"] = request.temperature
    if request.response_schema is not None:
        shape = {"name": "answer", "schema": request.response_schema, "strict": False}
        body["response_format"] = {"type": "json_schema", "json_schema": shape}
    return body


def _message(message: ChatMessage) -> dict[str, Any]:
    if message.role == "tool":
        return {"role": "tool", "tool_call_id": message.call_id, "content": message.text}
    told: dict[str, Any] = {"role": message.role, "content": message.text}
    if message.name:
        told["name"] = message.name
    if message.calls:
        told["content"] = message.text or None
        told["tool_calls"] = [
            {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
            for call in message.calls
        ]
    return told


def _tool(tool: ChatTool) -> dict[str, Any]:
    function = {"name": tool.name, "description": tool.description, "parameters": tool.schema}
    return {"type": "function", "function": function}


def reply_of(whole: Any) -> ChatReply:
    """The reply in a completion. Raises: Transient (code `model_unavailable`) when it holds none."""
    if not getattr(whole, "choices", None):
        raise Transient("model_unavailable", "the model's answer holds no choice; the server may be overloaded")
    choice = whole.choices[0]
    calls = tuple(
        ChatCall(call.id, call.function.name, call.function.arguments or "")
        for call in choice.message.tool_calls or ()
        if call.type == "function"
    )
    return _reply(choice.message.content or choice.message.refusal or "", calls, choice.finish_reason, whole)


def _reply(text: str, calls: Sequence[ChatCall], finish: str | None, whole: Any) -> ChatReply:
    usage = getattr(whole, "usage", None)
    return ChatReply(
        text=text,
        calls=tuple(calls),
        finish=finish or ("tool_calls" if calls else "stop"),
        input_tokens=getattr(usage, "prompt_tokens", 0) or 0,
        output_tokens=getattr(usage, "completion_tokens", 0) or 0,
        model=getattr(whole, "model", "") or "",
    )


class StreamedReply:
    """Puts a reply together from its pieces."""

    def __init__(self, on_text: Callable[[str], None]) -> None:
        self._on_text = on_text
        self._text: list[str] = []
        self._calls: dict[int, ChatCall] = {}
        self._finish: str | None = None
        self._last: Any = None
        self._usage: Any = None

    def add(self, piece: Any) -> None:
        """The next piece, in order."""
        self._last = piece
        self._usage = piece.usage or self._usage
        for choice in piece.choices:
            self._finish = choice.finish_reason or self._finish
            said = choice.delta.content or choice.delta.refusal
            if said:
                self._text.append(said)
                self._on_text(said)
            for part in choice.delta.tool_calls or ():
                self._calls[part.index] = _extended(self._calls.get(part.index), part)

    def reply(self) -> ChatReply:
        """The whole. Raises: Transient (code `model_unavailable`) when the stream ended before the answer did."""
        if self._finish is None:
            raise Transient("model_unavailable", "the model's stream was cut before the answer was complete")
        calls = [call for _, call in sorted(self._calls.items())]
        reply = _reply("".join(self._text), calls, self._finish, self._last)
        if self._usage is None:
            return reply
        return ChatReply(
            reply.text,
            reply.calls,
            reply.finish,
            self._usage.prompt_tokens or 0,
            self._usage.completion_tokens or 0,
            reply.model,
        )


def _extended(call: ChatCall | None, part: Any) -> ChatCall:
    known = call or ChatCall(id="", name="", arguments="")
    function = part.function
    return ChatCall(
        id=known.id or part.id or "",
        name=known.name + ((function.name or "") if function else ""),
        arguments=known.arguments + ((function.arguments or "") if function else ""),
    )


def translated(model: str, error: Exception, clock: Clock) -> PerdureError:
    """What a failure of the client means for the caller."""
    if isinstance(error, PerdureError):
        return error
    status = getattr(error, "status_code", None)
    said = getattr(error, "message", None) or str(error) or type(error).__name__
    if not isinstance(status, int) or status < 400:  # no or a broken answer
        return Transient("model_unavailable", f"model {model!r} could not be asked: {said}", model=model)
    details: dict[str, Any] = {"model": model, "status": status}
    if getattr(error, "code", None) == "insufficient_quota":  # comes as 429, but waiting does not bring money
        return Failed("model_rejected", f"the quota for model {model!r} is used up: {said}", **details)
    if status not in _REPEATABLE and status < 500:
        return Failed("model_rejected", f"model {model!r} refused the request ({status}): {said}", **details)
    wait_s = _retry_after_s(getattr(getattr(error, "response", None), "headers", {}), clock)
    if wait_s is not None:
        details["retry_after_s"] = wait_s
    code = "model_rate_limited" if status == 429 else "model_unavailable"
    return Transient(code, f"model {model!r} cannot answer now ({status}): {said}", **details)


def _retry_after_s(headers: Mapping[str, str], clock: Clock) -> float | None:
    """Seconds to wait, from `retry-after-ms`, or `Retry-After` in seconds or as a date (RFC 9110, 10.2.3)."""
    exact, given = headers.get("retry-after-ms", ""), headers.get("retry-after", "")
    for text, unit_s in ((exact, 0.001), (given, 1.0)):
        try:
            return max(0.0, float(text) * unit_s)
        except ValueError:
            continue
    try:
        moment = parsedate_to_datetime(given)
    except ValueError:
        return None
    return max(0.0, (moment.replace(tzinfo=moment.tzinfo or UTC) - clock.now()).total_seconds())
