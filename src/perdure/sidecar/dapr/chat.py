"""Model calls through a conversation component."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

from dapr.proto.runtime.v1 import ai_pb2 as ai
from google.protobuf.json_format import ParseDict
from google.protobuf.struct_pb2 import Struct
from grpc import StatusCode
from grpc.aio import AioRpcError

from perdure.errors import Failed, Invalid, PerdureError, SidecarUnavailable, Transient
from perdure.sidecar.dapr.answer_schema import carried
from perdure.sidecar.dapr.channel import SidecarChannel
from perdure.sidecar.dapr.translation import definite, details
from perdure.sidecar.ports import ChatCall, ChatMessage, ChatReply, ChatTool
from perdure.types import JsonObject

PROVIDER_STATUS = re.compile(r"status code:? ?(\d{3})|component \S+: ([45]\d\d) [A-Z]")
"""`… API returned unexpected status code: 429: slow down` of most components; `…: 404 Not Found: …` of Ollama's."""

WORTH_ANOTHER_TRY = frozenset({408, 409, 425, 429})
"""Of the 4xx, those that speak of the moment and not of the request."""

PROVIDER_DEFAULT_TEMPERATURE = 1.0
"""Sent when the caller names none: the component would send 0, which some models refuse."""


class DaprChat:
    """The conversation components of the sidecar."""

    def __init__(self, channel: SidecarChannel) -> None:
        self._channel = channel

    async def converse(
        self,
        component: str,
        messages: Sequence[ChatMessage],
        *,
        tools: Sequence[ChatTool] = (),
        temperature: float | None = None,
        response_schema: JsonObject | None = None,
        timeout_s: float = 120.0,
    ) -> ChatReply:
        answer_schema = carried(response_schema) if response_schema is not None else None
        told = messages if response_schema is None or answer_schema else [_demand(response_schema), *messages]
        request = ai.ConversationRequestAlpha2(
            name=component,
            inputs=[ai.ConversationInputAlpha2(messages=[_message(each) for each in told])],
            temperature=PROVIDER_DEFAULT_TEMPERATURE if temperature is None else temperature,
            tools=[_tool(tool) for tool in tools],
        )
        if tools:
            request.tool_choice = "auto"
        if answer_schema is not None:
            request.response_format.CopyFrom(ParseDict(answer_schema, Struct()))
        try:
            reply = await self._channel.stub.ConverseAlpha2(request, timeout=timeout_s, metadata=self._channel.metadata)
        except AioRpcError as error:
            raise _translated(error, component) from error
        return _reply(reply, component)


def _content(text: str) -> list[Any]:
    return [ai.ConversationMessageContent(text=text)] if text else []


def _message(message: ChatMessage) -> Any:
    content, name = _content(message.text), message.name or None
    match message.role:
        case "system":
            return ai.ConversationMessage(of_system=ai.ConversationMessageOfSystem(name=name, content=content))
        case "user":
            return ai.ConversationMessage(of_user=ai.ConversationMessageOfUser(name=name, content=content))
        case "assistant":
            calls = [
                ai.ConversationToolCalls(
                    id=call.id,
                    function=ai.ConversationToolCallsOfFunction(name=call.name, arguments=call.arguments),
                )
                for call in message.calls
            ]
            return ai.ConversationMessage(
                of_assistant=ai.ConversationMessageOfAssistant(name=name, content=content, tool_calls=calls)
            )
        case "tool":
            return ai.ConversationMessage(
                of_tool=ai.ConversationMessageOfTool(tool_id=message.call_id, name=message.name, content=content)
            )
        case role:
            raise Invalid("message_role", f"role {role!r} is unknown; use system, user, assistant or tool")


def _tool(tool: ChatTool) -> Any:
    function = ai.ConversationToolsFunction(name=tool.name, description=tool.description)
    function.parameters.CopyFrom(ParseDict(tool.schema, Struct()))
    return ai.ConversationTools(function=function)


def _demand(schema: JsonObject) -> ChatMessage:
    """The schema in words, where the component could not carry it."""
    text = json.dumps(schema, separators=(",", ":"), ensure_ascii=False)
    return ChatMessage("system", f"Answer with JSON only, no other text, following this JSON schema: {text}")


def _reply(reply: Any, component: str) -> ChatReply:
    if not reply.outputs or not reply.outputs[0].choices:
        raise Transient("model_unavailable", f"conversation component {component!r} answered nothing; repeat")
    output = reply.outputs[0]
    texts: list[str] = []
    calls: list[ChatCall] = []
    for choice in output.choices:
        if choice.message.content:
            texts.append(choice.message.content)
        calls.extend(
            ChatCall(call.id, call.function.name, call.function.arguments) for call in choice.message.tool_calls
        )
    finish = output.choices[-1].finish_reason or ("tool_calls" if calls else "stop")
    return ChatReply(
        text="\n".join(texts),
        calls=tuple(calls),
        finish=finish,
        input_tokens=output.usage.prompt_tokens,
        output_tokens=output.usage.completion_tokens,
        model=output.model,
    )


def _translated(error: AioRpcError, component: str) -> PerdureError:
    """The provider's status is only in the text, always as gRPC INTERNAL; what it says besides follows there."""
    text = error.details() or ""
    found = PROVIDER_STATUS.search(text)
    if found is not None:
        return _said_by_provider(int(found[1] or found[2]), text, component)
    certain = definite(error, "conversation", component)
    if certain is not None:
        return certain
    if error.code() is StatusCode.UNAVAILABLE:
        return SidecarUnavailable("sidecar_unavailable", f"the sidecar did not answer ({details(error)})")
    if error.code() is StatusCode.DEADLINE_EXCEEDED:
        return Transient("model_unavailable", f"the model behind {component!r} did not answer in time; repeat")
    # A broken answer, a cut connection, a server that is not there: the component tells them apart only in words.
    return Transient("model_unavailable", f"the model behind {component!r} did not answer ({details(error)}); repeat")


def _said_by_provider(status: int, text: str, component: str) -> PerdureError:
    if 400 <= status < 500 and status not in WORTH_ANOTHER_TRY:
        message = f"the model behind {component!r} rejected the request: {text}"
        return Failed("model_rejected", message, status=status)
    if status == 429:
        message = f"the model behind {component!r} is rate limited: {text}"
        return Transient("model_rate_limited", message, status=status)
    return Transient("model_unavailable", f"the model behind {component!r} failed: {text}", status=status)
