"""A model asked without a sidecar, by the `openai` package: whole answers and streams."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from aimock import BROKEN_JSON, CUT, FIRST, SLOW, Aimock, answer, calls, refusal
from perdure.clock import SystemClock
from perdure.errors import Failed, PerdureError, Refused, Transient
from perdure.llm import ModelRequest, OpenAIModel, RetryingModel, RetryPolicy, forbid_outside_calls
from perdure.sidecar.ports import ChatMessage, ChatTool

pytestmark = [pytest.mark.node, pytest.mark.timeout(180), pytest.mark.asyncio(loop_scope="session")]

WEATHER = ChatTool("weather", "The weather.", {"type": "object", "properties": {"city": {"type": "string"}}})
SMALL_PIECES = {"chunkSize": 4}


class Heard:
    """What a listener hears of a stream; a restart is heard as None."""

    def __init__(self) -> None:
        self.pieces: list[str | None] = []

    def listens(self, text: str, **more: Any) -> ModelRequest:
        messages = (ChatMessage("user", text),)
        return ModelRequest(messages, on_text=self.pieces.append, on_restart=lambda: self.pieces.append(None), **more)


class Waits(SystemClock):
    """A clock that remembers how long it was asked to sleep, and does not."""

    def __init__(self) -> None:
        self.waited: list[float] = []

    async def sleep(self, seconds: float) -> None:
        self.waited.append(seconds)


def asks(text: str, **more: Any) -> ModelRequest:
    return ModelRequest((ChatMessage("user", text),), **more)


@pytest.fixture
async def model(server: Aimock) -> AsyncIterator[OpenAIModel]:
    made = OpenAIModel("direct-model", base_url=f"{server.url}/v1")
    yield made
    await made.aclose()


async def test_an_answer_arrives_in_pieces_and_whole(server: Aimock, model: OpenAIModel) -> None:
    await server.script(answer("d-stream", "one two three four", **SMALL_PIECES))
    heard = Heard()
    reply = await model.reply(heard.listens("d-stream"))
    assert reply.text == "".join(piece or "!" for piece in heard.pieces) == "one two three four"
    assert len(heard.pieces) > 3
    assert (reply.input_tokens, reply.output_tokens, reply.model) == (11, 7, "direct-model")
    assert (await server.asked("d-stream"))[0]["stream"] is True


async def test_calls_arrive_in_pieces_too(server: Aimock, model: OpenAIModel) -> None:
    await server.script(calls("d-calls", ("weather", {"city": "Oslo"}), ("weather", {"city": "Rome"})) | SMALL_PIECES)
    reply = await model.reply(Heard().listens("d-calls", tools=(WEATHER,)))
    assert [json.loads(call.arguments)["city"] for call in reply.calls] == ["Oslo", "Rome"]
    assert len({call.id for call in reply.calls}) == 2
    assert reply.finish == "tool_calls"


async def test_a_stream_cut_in_the_middle_is_begun_again_and_the_listener_knows(
    server: Aimock, model: OpenAIModel
) -> None:
    await server.script(
        answer("d-cut", "one two three four", match=FIRST, truncateAfterChunks=3, latency=20, **SMALL_PIECES),
        answer("d-cut", "one two three four", **SMALL_PIECES),
    )
    heard = Heard()
    reply = await RetryingModel(model, clock=Waits()).reply(heard.listens("d-cut"))
    assert reply.text == "one two three four"
    void = heard.pieces.index(None)
    assert void > 0
    assert "".join(piece or "!" for piece in heard.pieces[void + 1 :]) == reply.text


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize(
    ("status", "error", "code"),
    [
        (400, Failed, "model_rejected"),
        (401, Failed, "model_rejected"),
        (429, Transient, "model_rate_limited"),
        (500, Transient, "model_unavailable"),
        (503, Transient, "model_unavailable"),
    ],
)
async def test_the_providers_status_and_words_are_told(
    server: Aimock, model: OpenAIModel, status: int, error: type[PerdureError], code: str, streaming: bool
) -> None:
    text = f"d-status-{status}-{streaming}"
    await server.script(refusal(text, status, "so says the provider"))
    with pytest.raises(error, match="so says the provider") as caught:
        await model.reply(Heard().listens(text) if streaming else asks(text))
    assert (caught.value.code, caught.value.details["status"]) == (code, status)


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize(
    "fault", [BROKEN_JSON, CUT, SLOW], ids=["JSON is broken", "connection is cut", "comes too late"]
)
async def test_an_answer_that_does_not_arrive_whole_may_be_asked_for_again(
    server: Aimock, model: OpenAIModel, fault: dict[str, Any], streaming: bool
) -> None:
    text = f"d-fault-{'-'.join(fault['chaos'])}-{streaming}"
    await server.script(answer(text, "never seen", **fault))
    request = Heard().listens(text, timeout_s=0.5) if streaming else asks(text, timeout_s=0.5)
    with pytest.raises(Transient) as caught:
        await model.reply(request)
    assert caught.value.code == "model_unavailable"


async def test_the_wait_that_the_provider_asks_for_is_kept(server: Aimock, model: OpenAIModel) -> None:
    await server.script(refusal("d-wait", 429, "not now", match=FIRST, retryAfter=7), answer("d-wait", "now"))
    clock = Waits()
    reply = await RetryingModel(model, RetryPolicy(first_wait_s=0.1), clock=clock).reply(asks("d-wait"))
    assert (reply.text, clock.waited) == ("now", [7.0])


async def test_a_wait_longer_than_the_time_there_is_ends_it_at_once(server: Aimock, model: OpenAIModel) -> None:
    await server.script(refusal("d-long", 429, "tomorrow", retryAfter=86_400))
    with pytest.raises(Transient) as caught:
        await RetryingModel(model, clock=Waits()).reply(asks("d-long"))
    assert caught.value.details["retry_after_s"] == 86_400
    assert len(await server.asked("d-long")) == 1


async def test_a_used_up_quota_is_no_rate_limit(server: Aimock, model: OpenAIModel) -> None:
    fixture = refusal("d-quota", 429, "pay first")
    fixture["response"]["error"]["code"] = "insufficient_quota"
    await server.script(fixture)
    with pytest.raises(Failed) as caught:
        await model.reply(asks("d-quota"))
    assert caught.value.code == "model_rejected"


async def test_a_server_that_refuses_connections_may_be_back() -> None:
    model = OpenAIModel("direct-model", base_url="http://127.0.0.1:1/v1")
    with pytest.raises(Transient) as caught:
        await model.reply(asks("hello"))
    assert caught.value.code == "model_unavailable"
    await model.aclose()


async def test_the_switch_keeps_calls_within_the_process(server: Aimock, model: OpenAIModel) -> None:
    with forbid_outside_calls(), pytest.raises(Refused):
        await model.reply(asks("d-forbidden"))
    assert await server.asked("d-forbidden") == []
