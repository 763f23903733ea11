"""The service process of the benchmarks: the same work, and tools that note in a file each time they run."""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path

from benchmarks import work
from perdure import App, DurableAgent, tool
from perdure.llm.model import ModelRequest
from perdure.sidecar.ports import ChatCall, ChatReply
from perdure.tools.context import ToolContext

EFFECTS = Path(os.environ.get("BENCH_EFFECTS", "effects.log"))


def note(step: str, effect: str, what: str) -> None:
    """One line, in one write: whole or not at all, also when the process is killed."""
    with EFFECTS.open("ab", buffering=0) as file:
        file.write(f"{what} {effect} {step}\n".encode())


async def _step(context: ToolContext, effect: str) -> str:
    note(context.key, effect, "began")
    await asyncio.sleep(0.002)
    note(context.key, effect, "ended")
    return "done"


@tool(effect="read")
async def read_step(turn: str, context: ToolContext) -> str:
    """A step that only looks."""
    return await _step(context, "read")


@tool(effect="idempotent")
async def idempotent_step(turn: str, context: ToolContext) -> str:
    """A step that may be repeated with its key."""
    return await _step(context, "idempotent")


@tool(effect="once")
async def once_step(turn: str, context: ToolContext) -> str:
    """A step that must not be repeated."""
    return await _step(context, "once")


@tool(effect="idempotent")
async def first_step(turn: str, context: ToolContext) -> str:
    """Ends at once."""
    note(context.key, "idempotent", "ended")
    return "done"


@tool(effect="idempotent")
async def cut_step(turn: str, context: ToolContext) -> str:
    """Lasts until its process is killed; the next attempt ends at once."""
    note(context.key, "idempotent", f"attempt-{context.attempt}")
    if context.attempt == 1:
        await asyncio.sleep(30)
    return "done"


@tool(effect="once", approval=True)
async def approved_step(turn: str) -> str:
    """Waits for a person."""
    return "done"


def _script(*names: str) -> work.Reply:
    """A model that calls each tool once, one after the other, then answers.

    The user's text is every call's argument: the same call of a `once` tool again, after one whose outcome is
    unknown, would be put to a person.
    """

    def reply(request: ModelRequest) -> ChatReply:
        asked = max(at for at, message in enumerate(request.messages) if message.role == "user")
        done = sum(message.role == "assistant" for message in request.messages[asked:])
        if done < len(names):
            arguments = json.dumps({"turn": request.messages[asked].text})
            return ChatReply("", (ChatCall(f"call-{done}", names[done], arguments),), finish="tool_calls")
        return ChatReply("all done")

    return reply


app = App(
    agents=[
        DurableAgent(work.AGENT, model=work.reply, tools=[work.look_up, work.book]),
        DurableAgent("steps", model=_script("read_step", "idempotent_step", "once_step"),
                     tools=[read_step, idempotent_step, once_step]),
        DurableAgent("cut", model=_script("first_step", "cut_step"), tools=[first_step, cut_step]),
        DurableAgent("asks", model=_script("approved_step"), tools=[approved_step]),
    ]
)  # fmt: skip
