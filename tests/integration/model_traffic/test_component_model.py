"""A model behind the sidecar's `conversation.openai`: what it says, and how each of its faults is told."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from aimock import BROKEN_JSON, CUT, FIRST, SLOW, answer, calls, refusal
from perdure.clock import SystemClock
from perdure.errors import Failed, PerdureError, SidecarUnavailable, Transient
from perdure.llm import ComponentModel, FallbackModel, ModelRequest, RetryingModel, RetryPolicy
from perdure.sidecar.dapr.channel import DaprAddress, SidecarChannel
from perdure.sidecar.dapr.chat import DaprChat
from perdure.sidecar.ports import ChatMessage, ChatTool
from raw_server import http

if TYPE_CHECKING:
    from .conftest import Traffic

pytestmark = [
    pytest.mark.sidecar,
    pytest.mark.node,
    pytest.mark.timeout(180),
    pytest.mark.asyncio(loop_scope="session"),
]

SCHEMA: dict[str, Any] = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
WEATHER = ChatTool("weather", "The weather in a city.", SCHEMA)


def asks(text: str, **more: Any) -> ModelRequest:
    return ModelRequest((ChatMessage("user", text),), **more)


class Waits(SystemClock):
    """A clock that remembers how long it was asked to sleep."""

    def __init__(self) -> None:
        self.waited: list[float] = []

    async def sleep(self, seconds: float) -> None:
        self.waited.append(seconds)
        await super().sleep(seconds)


async def test_a_plain_answer_with_its_usage_and_the_components_model(traffic: Traffic) -> None:
    await traffic.server.script(answer("c-plain", "forty-two"))
    reply = await ComponentModel("chat", traffic.chat).reply(asks("c-plain?"))
    assert (reply.text, reply.calls, reply.finish) == ("forty-two", (), "stop")
    assert (reply.input_tokens, reply.output_tokens, reply.model) == (11, 7, "chat-model")
    (asked,) = await traffic.server.asked("c-plain")
    assert (asked["model"], asked["temperature"]) == ("chat-model", 1)


async def test_calls_arguments_and_results_go_to_the_model_and_back(traffic: Traffic) -> None:
    await traffic.server.script(
        answer("c-tools", "Rain, rain.", match={"hasToolResult": True}),
        calls("c-tools", ("weather", {"city": "Oslo"}), ("weather", {"city": "Rome"})),
    )
    model = ComponentModel("chat", traffic.chat)
    first = await model.reply(asks("c-tools", tools=(WEATHER,)))
    assert [(call.name, json.loads(call.arguments)) for call in first.calls] == [
        ("weather", {"city": "Oslo"}),
        ("weather", {"city": "Rome"}),
    ]
    assert first.finish == "tool_calls"
    told = (
        ChatMessage("user", "c-tools"),
        ChatMessage("assistant", calls=first.calls),
        *(ChatMessage("tool", "rain", call_id=call.id, name=call.name) for call in first.calls),
    )
    assert (await model.reply(ModelRequest(told, tools=(WEATHER,)))).text == "Rain, rain."
    asked = (await traffic.server.asked("c-tools"))[1]
    assert [message["role"] for message in asked["messages"]] == ["user", "assistant", "tool", "tool"]
    assert [message["tool_call_id"] for message in asked["messages"][2:]] == [call.id for call in first.calls]
    assert asked["tools"][0]["function"]["parameters"] == SCHEMA


async def test_the_shape_of_an_answer_reaches_the_model_as_its_response_format(traffic: Traffic) -> None:
    await traffic.server.script(answer("c-shape", '{"city": "Oslo"}'))
    reply = await ComponentModel("chat", traffic.chat).reply(asks("c-shape", response_schema=SCHEMA))
    assert json.loads(reply.text) == {"city": "Oslo"}
    (asked,) = await traffic.server.asked("c-shape")
    assert asked["response_format"]["type"] == "json_schema"
    shape = asked["response_format"]["json_schema"]["schema"]
    assert (shape["type"], shape["required"], shape["additionalProperties"]) == ("object", ["city"], False)
    assert shape["properties"]["city"]["type"] == "string"


async def test_a_shape_no_component_carries_is_told_to_the_model_in_words(traffic: Traffic) -> None:
    await traffic.server.script(answer("c-words", "{}"))
    schema: dict[str, Any] = {"type": "object", "additionalProperties": {"type": "integer"}}
    await ComponentModel("chat", traffic.chat).reply(asks("c-words", response_schema=schema))
    (asked,) = await traffic.server.asked("c-words")
    assert "response_format" not in asked
    assert [message["role"] for message in asked["messages"]] == ["system", "user"]
    assert '"additionalProperties":{"type":"integer"}' in asked["messages"][0]["content"]


@pytest.mark.parametrize(
    ("status", "error", "code"),
    [
        *((status, Failed, "model_rejected") for status in (400, 401, 403, 404, 413, 422)),
        *((status, Transient, "model_unavailable") for status in (408, 409, 425, 500, 502, 503, 504, 529)),
        (429, Transient, "model_rate_limited"),
    ],
)
async def test_the_providers_status_and_words_are_told(
    traffic: Traffic, status: int, error: type[PerdureError], code: str
) -> None:
    await traffic.server.script(refusal(f"c-status-{status}.", status, "so says the provider"))
    with pytest.raises(error, match=f"'chat'.* {status}: so says the provider") as caught:
        await ComponentModel("chat", traffic.chat).reply(asks(f"c-status-{status}."))
    assert (caught.value.code, caught.value.details["status"]) == (code, status)


@pytest.mark.parametrize(
    "fault", [BROKEN_JSON, CUT, SLOW], ids=["JSON is broken", "connection is cut", "comes too late"]
)
async def test_an_answer_that_does_not_arrive_whole_may_be_asked_for_again(
    traffic: Traffic, fault: dict[str, Any]
) -> None:
    text = f"c-fault-{'-'.join(fault['chaos'])}"
    await traffic.server.script(answer(text, "never seen", **fault))
    with pytest.raises(Transient) as caught:
        await ComponentModel("chat", traffic.chat).reply(asks(text, timeout_s=0.5))
    assert caught.value.code == "model_unavailable"


@pytest.mark.parametrize(
    ("response", "error", "code"),
    [
        pytest.param(http(b'{"id": "c", "choices": [{"in', length=900), Transient, "model_unavailable", id="cut"),
        pytest.param(b"", Transient, "model_unavailable", id="closed without a word"),
        pytest.param(http(b""), Transient, "model_unavailable", id="empty"),
        pytest.param(http(b"{}"), Transient, "model_unavailable", id="no choices"),
        pytest.param(http(b"<html>", kind="text/html"), Transient, "model_unavailable", id="a web page"),
        pytest.param(
            http(b"<html>", kind="text/html", status="502 Bad Gateway"), Transient, "model_unavailable", id="a gateway"
        ),
        pytest.param(
            http(b"slow", kind="text/plain", status="429 Too Many Requests"), Transient, "model_rate_limited", id="429"
        ),
        pytest.param(
            http(b'{"error": "no"}', status="401 Unauthorized"), Failed, "model_rejected", id="401 in other words"
        ),
    ],
)
async def test_servers_that_speak_another_language_are_understood_all_the_same(
    traffic: Traffic, response: bytes, error: type[PerdureError], code: str
) -> None:
    traffic.raw.answers[:] = [response]
    with pytest.raises(error) as caught:
        await ComponentModel("raw", traffic.chat).reply(asks("hello"))
    assert caught.value.code == code
    assert traffic.raw.requests[-1]["model"] == "raw"


async def test_a_server_that_refuses_connections_may_be_back(traffic: Traffic) -> None:
    with pytest.raises(Transient, match="'gone'") as caught:
        await ComponentModel("gone", traffic.chat).reply(asks("hello"))
    assert caught.value.code == "model_unavailable"


async def test_a_missing_sidecar_is_not_taken_for_a_missing_model() -> None:
    channel = SidecarChannel(DaprAddress(grpc="127.0.0.1:1"))
    with pytest.raises(SidecarUnavailable):
        await ComponentModel("chat", DaprChat(channel)).reply(asks("hello"))
    await channel.close()


@pytest.mark.parametrize("status", [429, 500])
async def test_what_may_pass_is_asked_again_after_a_wait_that_varies(traffic: Traffic, status: int) -> None:
    text = f"c-once-{status}"
    await traffic.server.script(refusal(text, status, "not now", match=FIRST), answer(text, "now"))
    clock = Waits()
    policy = RetryPolicy(max_attempts=3, first_wait_s=0.2)
    model = RetryingModel(ComponentModel("chat", traffic.chat), policy, clock=clock, chance=lambda: 0.25)
    assert (await model.reply(asks(text))).text == "now"
    assert clock.waited == [pytest.approx(0.2 * (0.5 + 0.5 * 0.25))]
    assert len(await traffic.server.asked(text)) == 2


async def test_it_is_asked_only_so_often_and_what_it_said_last_is_told(traffic: Traffic) -> None:
    await traffic.server.script(refusal("c-always", 503, "never"))
    clock = Waits()
    policy = RetryPolicy(max_attempts=3, first_wait_s=0.02)
    model = RetryingModel(ComponentModel("chat", traffic.chat), policy, clock=clock, chance=lambda: 1.0)
    with pytest.raises(Transient, match="never"):
        await model.reply(asks("c-always"))
    assert clock.waited == [pytest.approx(0.02), pytest.approx(0.04)]
    assert len(await traffic.server.asked("c-always")) == 3


async def test_a_rejected_request_is_not_repeated(traffic: Traffic) -> None:
    await traffic.server.script(refusal("c-wrong", 400, "a wrong request"))
    clock = Waits()
    with pytest.raises(Failed):
        await RetryingModel(ComponentModel("chat", traffic.chat), clock=clock).reply(asks("c-wrong"))
    assert (clock.waited, len(await traffic.server.asked("c-wrong"))) == ([], 1)


async def test_the_next_model_answers_when_the_first_is_down(traffic: Traffic) -> None:
    await traffic.server.script(answer("c-chain", "from the second"))
    chain = FallbackModel([ComponentModel("gone", traffic.chat), ComponentModel("chat", traffic.chat)])
    reply = await chain.reply(asks("c-chain"))
    assert (reply.text, reply.model) == ("from the second", "component:chat")
