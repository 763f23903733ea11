"""The direct way to a provider, against a server that answers what a test says."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from email.utils import format_datetime
from typing import Any

import pytest

from perdure.errors import Failed, PerdureError, Transient
from perdure.llm import ModelRequest, OpenAIModel, allow_outside_calls
from perdure.sidecar.ports import ChatCall, ChatMessage, ChatTool
from perdure.testing.clock import FakeClock

pytest.importorskip("openai")

TOOL = ChatTool("weather", "Tell the weather.", {"type": "object", "properties": {}})
MESSAGES = (
    ChatMessage("system", "Be brief."),
    ChatMessage("user", "Weather?"),
    ChatMessage("assistant", calls=(ChatCall("c1", "weather", "{}"),)),
    ChatMessage("tool", "rain", call_id="c1"),
)


class Server:
    """Answers each request with the next answer and remembers what was asked."""

    def __init__(self, answers: list[bytes]) -> None:
        self.answers = answers
        self.bodies: list[dict[str, Any]] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        length = int(head.split("content-length:")[1].split("\r\n")[0])
        self.bodies.append(json.loads(await reader.readexactly(length)))
        writer.write(self.answers.pop(0))
        await writer.drain()
        writer.close()
        await writer.wait_closed()


@asynccontextmanager
async def answering(*answers: bytes, clock: FakeClock | None = None) -> AsyncIterator[tuple[OpenAIModel, Server]]:
    double = Server(list(answers))
    server = await asyncio.start_server(double.serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    model = OpenAIModel("gpt-x", base_url=f"http://127.0.0.1:{port}/v1", clock=clock)
    try:
        with allow_outside_calls():  # to this server, which is in the process
            yield model, double
    finally:
        await model.aclose()
        server.close()
        await server.wait_closed()


def http(status: int, body: str, *headers: str, kind: str = "application/json", cut: int = 0) -> bytes:
    lines = [f"HTTP/1.1 {status} X", f"content-type: {kind}", f"content-length: {len(body) + cut}", "connection: close"]
    return "\r\n".join([*lines, *headers, "", body]).encode()


def completion(**message: Any) -> str:
    choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": None, **message}}
    usage = {"prompt_tokens": 11, "completion_tokens": 5, "total_tokens": 16}
    whole = {"id": "1", "object": "chat.completion", "created": 1, "model": "gpt-x-1", "choices": [choice]}
    return json.dumps({**whole, "usage": usage})


def stream(*deltas: dict[str, Any], end: bool = True) -> str:
    pieces: list[dict[str, Any]] = [
        {"choices": [{"index": 0, "delta": delta, "finish_reason": None}]} for delta in deltas
    ]
    if end:
        pieces += [
            {"choices": [{"index": 0, "delta": {}, "finish_reason": "tool_calls"}]},
            {"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7}},
        ]
    frame = {"id": "1", "object": "chat.completion.chunk", "created": 1, "model": "gpt-x-1"}
    text = "".join(f"data: {json.dumps({**frame, **piece})}\n\n" for piece in pieces)
    return text + "data: [DONE]\n\n" if end else text


async def test_a_question_is_asked_in_the_protocols_words() -> None:
    schema = {"type": "object"}
    async with answering(http(200, completion(content="Rain."))) as (model, server):
        reply = await model.reply(ModelRequest(MESSAGES, (TOOL,), temperature=0.0, response_schema=dict(schema)))
    assert (reply.text, reply.finish, reply.input_tokens, reply.output_tokens) == ("Rain.", "stop", 11, 5)
    assert reply.model == "gpt-x-1"
    (body,) = server.bodies
    call = {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": "{}"}}
    assert body["messages"] == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Weather?"},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c1", "content": "rain"},
    ]
    assert body["temperature"] == 0.0
    assert body["tools"][0]["function"]["name"] == "weather"
    assert body["response_format"]["json_schema"]["schema"] == schema


async def test_tool_calls_come_back_as_the_model_wrote_them() -> None:
    call = {"id": "c9", "type": "function", "function": {"name": "weather", "arguments": '{"city": '}}
    async with answering(http(200, completion(tool_calls=[call]))) as (model, _):
        reply = await model.reply(ModelRequest(MESSAGES))
    assert reply.calls == (ChatCall("c9", "weather", '{"city": '),)


async def test_a_stream_is_heard_in_pieces_and_put_together() -> None:
    def part(**function: str) -> dict[str, Any]:
        return {"tool_calls": [{"index": 0, "id": "c1", "type": "function", "function": function}]}

    answer = stream(
        {"content": "Let me "}, {"content": "see."}, part(name="weather", arguments='{"a"'), part(arguments=":1}")
    )
    heard: list[str] = []
    async with answering(http(200, answer, kind="text/event-stream")) as (model, server):
        reply = await model.reply(ModelRequest(MESSAGES, on_text=heard.append))
    assert heard == ["Let me ", "see."]
    assert (reply.text, reply.calls) == ("Let me see.", (ChatCall("c1", "weather", '{"a":1}'),))
    assert (reply.finish, reply.input_tokens, reply.output_tokens) == ("tool_calls", 3, 4)
    assert server.bodies[0]["stream"] is True


ERROR = json.dumps({"error": {"message": "slow down", "type": "x", "code": "y"}})
BROKE = json.dumps({"error": {"message": "pay first", "type": "x", "code": "insufficient_quota"}})
HALF = stream({"content": "hel"}, end=False)


@pytest.mark.parametrize(
    ("answer", "streaming", "kind", "code"),
    [
        (http(429, ERROR), False, Transient, "model_rate_limited"),
        (http(429, ERROR), True, Transient, "model_rate_limited"),
        (http(500, ERROR), False, Transient, "model_unavailable"),
        (http(503, "overloaded", kind="text/plain"), False, Transient, "model_unavailable"),
        (http(400, ERROR), False, Failed, "model_rejected"),
        (http(401, ERROR), False, Failed, "model_rejected"),
        (http(429, BROKE), False, Failed, "model_rejected"),
        (http(200, '{"choices": [{'), False, Transient, "model_unavailable"),
        (http(200, "{}"), False, Transient, "model_unavailable"),
        (http(200, completion(content="cut"), cut=100), False, Transient, "model_unavailable"),
        (http(200, HALF, kind="text/event-stream"), True, Transient, "model_unavailable"),
        (http(200, HALF, kind="text/event-stream", cut=100), True, Transient, "model_unavailable"),
        (http(200, "data: {broken\n\n", kind="text/event-stream"), True, Transient, "model_unavailable"),
        (b"", False, Transient, "model_unavailable"),
    ],
)
async def test_each_failure_says_what_to_do_next(
    answer: bytes, streaming: bool, kind: type[PerdureError], code: str
) -> None:
    request = ModelRequest(MESSAGES, on_text=(lambda _text: None) if streaming else None)
    async with answering(answer) as (model, server):
        with pytest.raises(kind) as caught:
            await model.reply(request)
    assert caught.value.code == code
    assert len(server.bodies) == 1  # repeating has another owner


async def test_retry_after_is_told_in_seconds_however_it_is_written() -> None:
    clock = FakeClock()
    date = format_datetime(clock.now() + timedelta(seconds=30), usegmt=True)
    for header, wait_s in (("retry-after: 7", 7.0), (f"Retry-After: {date}", 30.0), ("retry-after-ms: 250", 0.25)):
        async with answering(http(429, ERROR, header), clock=clock) as (model, _):
            with pytest.raises(Transient) as caught:
                await model.reply(ModelRequest(MESSAGES))
        assert caught.value.details["retry_after_s"] == wait_s


async def test_a_server_that_is_not_there_is_transient() -> None:
    async with answering() as (model, _):
        pass
    with allow_outside_calls(), pytest.raises(Transient, match="could not be asked"):
        await model.reply(ModelRequest(MESSAGES))
    await model.aclose()
