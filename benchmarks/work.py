"""The work that is measured: user text 1 KB → model → 2 tools → model → answer 1 KB, each result durable before
the next step. The model is a script without latency, so what is measured is perdure and what lies below it."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from functools import cache
from zlib import crc32

from perdure import DurableAgent, tool
from perdure.llm.model import ModelRequest
from perdure.sidecar.ports import ChatCall, ChatReply

AGENT = "work"
LASTING = "lasting"
COMMITS = 5
"""Accepted and claimed; the model's calls, reserved; the first result; the second; the answer, closed."""

MODEL_S = 1.0
TOOL_S = 6.0

_WORDS = ("river", "stone", "cedar", "harbour", "lantern", "copper", "orchard", "thunder", "velvet", "granite")


@cache
def text(seed: int, size: int = 1024) -> str:
    """`size` characters of prose that compresses about as well as prose does."""
    source = random.Random(seed)
    words: list[str] = []
    length = 0
    while length < size:
        words.append(f"{source.choice(_WORDS)}{source.randrange(1000)}")
        length += len(words[-1]) + 1
    return " ".join(words)[:size]


@tool(effect="read")
async def look_up(city: str) -> str:
    """What is known about a city."""
    return f"{city}: 12 degrees, light rain"


@tool(effect="idempotent")
async def book(room: str) -> str:
    """Book a room."""
    for _ in range(4):
        # Ends after the other tool, while that one's result is being written: each result is a write of its own,
        # so a turn is exactly as many writes, one after the other, as the floor beside it.
        await asyncio.sleep(0)
    return f"room {room} is booked"


@tool(effect="idempotent")
async def wait_long() -> str:
    """Takes as long as a slow service."""
    await asyncio.sleep(TOOL_S)
    return "done"


CALLS = ChatReply(
    "",
    (
        ChatCall("call-1", "look_up", '{"city":"Oslo"}'),
        ChatCall("call-2", "book", '{"room":"114"}'),
    ),
    finish="tool_calls",
    input_tokens=300,
    output_tokens=40,
)
_ANSWERS = [text(seed) for seed in range(1000, 1064)]


Reply = Callable[[ModelRequest], ChatReply]


def after_last_user(request: ModelRequest) -> str:
    """Role of the newest message."""
    return request.messages[-1].role


def reply(request: ModelRequest) -> ChatReply:
    """Two tool calls for a question, 1 KB of answer for their results."""
    if after_last_user(request) == "user":
        return CALLS
    asked = next(message.text for message in reversed(request.messages) if message.role == "user")
    return ChatReply(_ANSWERS[crc32(asked.encode()) % len(_ANSWERS)], input_tokens=400, output_tokens=250)


async def slow_reply(request: ModelRequest) -> ChatReply:
    """The same with a model that thinks, and one tool that lasts."""
    if after_last_user(request) == "user":
        await asyncio.sleep(MODEL_S)
        return ChatReply("", (ChatCall("call-1", "wait_long", "{}"),), finish="tool_calls")
    return ChatReply(_ANSWERS[0])


def agents() -> list[DurableAgent]:
    """Agents that run in the measuring process."""
    return [
        DurableAgent(AGENT, model=reply, tools=[look_up, book]),
        DurableAgent(LASTING, model=slow_reply, tools=[wait_long]),
    ]
