"""What every `Chat` promises, and how a provider's failures are told through Dapr."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Any

import orjson
import pytest

from perdure.errors import Failed, NotFound, PerdureError, SidecarUnavailable, Transient
from perdure.sidecar.dapr.channel import DaprAddress, SidecarChannel
from perdure.sidecar.dapr.chat import DaprChat
from perdure.sidecar.memory import MemoryChat
from perdure.sidecar.ports import Chat, ChatCall, ChatMessage, ChatReply, ChatTool

WEATHER = ChatTool("weather", "The weather somewhere.", {"type": "object", "properties": {"city": {"type": "string"}}})
COMPLETIONS = "/v1/chat/completions"


async def echo(messages: Sequence[ChatMessage], tools: Sequence[ChatTool]) -> ChatReply:
    return ChatReply(text="\n".join(message.text for message in messages))


@pytest.fixture(params=["memory", pytest.param("dapr", marks=pytest.mark.sidecar)])
async def chat(request: pytest.FixtureRequest) -> AsyncIterator[Chat]:
    if request.param == "memory":
        yield MemoryChat({"echo": echo})
    else:
        channel = SidecarChannel(request.getfixturevalue("platform").address)
        yield DaprChat(channel)
        await channel.close()


async def test_a_component_answers(chat: Chat) -> None:
    reply = await chat.converse("echo", [ChatMessage("user", "hello")])
    assert reply.text == "hello"
    assert reply.finish == "stop"
    assert reply.calls == ()


async def test_a_missing_component_is_named(chat: Chat) -> None:
    with pytest.raises(NotFound, match="nowhere") as caught:
        await chat.converse("nowhere", [ChatMessage("user", "hello")])
    assert caught.value.code == "component_unknown"


async def test_a_component_that_this_process_lacks_is_named_with_what_to_do() -> None:
    with pytest.raises(NotFound) as caught:
        await MemoryChat({"echo": echo}).converse("chat", [ChatMessage("user", "hello")])
    assert caught.value.message == (
        "no conversation component 'chat' in this process, which has ['echo']; give the agent model='scripted:…' "
        "or a model object, or run it beside Dapr with such a component"
    )


# --- through a real conversation component, to a model server of this test --------------------------


@pytest.fixture
async def openai(platform: Any, listener: Any) -> AsyncIterator[Chat]:
    channel = SidecarChannel(platform.address)
    async with listener.listening(platform.ports["app"]):
        yield DaprChat(channel)
    await channel.close()


def completion(**message: Any) -> dict[str, Any]:
    return {
        "id": "c-1",
        "object": "chat.completion",
        "created": 1,
        "model": "test-1",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", **message},
                "finish_reason": "tool_calls" if message.get("tool_calls") else "stop",
            }
        ],
        "usage": {"prompt_tokens": 11, "completion_tokens": 7, "total_tokens": 18},
    }


@pytest.mark.sidecar
async def test_tools_calls_results_and_usage_pass_through(openai: Chat, listener: Any) -> None:
    asked = {"id": "call-1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Oslo"}'}}

    async def answer(_: bytes) -> tuple[int, Any]:
        return 200, completion(content=None, tool_calls=[asked])

    listener.answers[COMPLETIONS] = answer
    reply = await openai.converse(
        "openai",
        [
            ChatMessage("system", "Be brief."),
            ChatMessage("user", "Oslo and Rome?"),
            ChatMessage("assistant", calls=(ChatCall("call-0", "weather", '{"city": "Rome"}'),)),
            ChatMessage("tool", "sunny", call_id="call-0", name="weather"),
        ],
        tools=[WEATHER],
    )
    assert reply.calls == (ChatCall("call-1", "weather", '{"city": "Oslo"}'),)
    assert (reply.finish, reply.input_tokens, reply.output_tokens) == ("tool_calls", 11, 7)
    _, _, body, _ = await listener.hears(COMPLETIONS)
    sent = orjson.loads(body)
    assert [message["role"] for message in sent["messages"]] == ["system", "user", "assistant", "tool"]
    assert sent["messages"][2]["tool_calls"][0]["function"] == {"name": "weather", "arguments": '{"city": "Rome"}'}
    assert sent["messages"][3]["tool_call_id"] == "call-0"
    assert sent["tools"][0]["function"]["parameters"] == WEATHER.schema
    assert sent["temperature"] == 1


@pytest.mark.sidecar
@pytest.mark.parametrize(
    ("status", "error", "code"),
    [
        (429, Transient, "model_rate_limited"),
        (500, Transient, "model_unavailable"),
        (503, Transient, "model_unavailable"),
        (400, Failed, "model_rejected"),
        (401, Failed, "model_rejected"),
    ],
)
async def test_the_providers_status_decides_what_to_do(
    openai: Chat, listener: Any, status: int, error: type[PerdureError], code: str
) -> None:
    async def answer(_: bytes) -> tuple[int, Any]:
        return status, {"error": {"message": "slow down", "type": "x", "code": None, "param": None}}

    listener.answers[COMPLETIONS] = answer
    with pytest.raises(error) as caught:
        await openai.converse("openai", [ChatMessage("user", "hello")])
    assert caught.value.code == code


@pytest.mark.sidecar
async def test_broken_json_from_the_model_is_worth_another_try(openai: Chat, listener: Any) -> None:
    async def answer(_: bytes) -> tuple[int, Any]:
        return 200, b'{"id": "c-1", "choi'

    listener.answers[COMPLETIONS] = answer
    with pytest.raises(Transient) as caught:
        await openai.converse("openai", [ChatMessage("user", "hello")])
    assert caught.value.code == "model_unavailable"


@pytest.mark.sidecar
async def test_a_model_that_is_not_there_is_worth_another_try(platform: Any) -> None:
    channel = SidecarChannel(platform.address)
    with pytest.raises(Transient) as caught:
        await DaprChat(channel).converse("openai", [ChatMessage("user", "hello")])
    assert caught.value.code == "model_unavailable"
    await channel.close()


async def test_a_sidecar_that_is_away_is_told_as_such() -> None:
    channel = SidecarChannel(DaprAddress(grpc="127.0.0.1:1"))
    with pytest.raises(SidecarUnavailable):
        await DaprChat(channel).converse("echo", [ChatMessage("user", "hello")])
    await channel.close()
