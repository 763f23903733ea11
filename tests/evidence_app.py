"""A service for the kill tests: everything it does leaves a line in `evidence.jsonl`, so a test can count.

Lines are appended with O_APPEND in one write each, so they stay whole and in order whoever is killed.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
from pathlib import Path
from typing import Any

from perdure import App, DurableAgent, Pipeline, StepContext, ToolContext, tool
from perdure.llm.model import ModelRequest
from perdure.sidecar.ports import ChatCall, ChatReply

EVIDENCE = Path("evidence.jsonl")
HOLD = Path("hold")
PACE_S = float(os.environ.get("PERDURE_TEST_PACE_S", "0.15"))
dice = random.Random()


def note(what: str, **more: object) -> None:
    line = json.dumps({"what": what, "pid": os.getpid(), **more}) + "\n"
    file = os.open(EVIDENCE, os.O_APPEND | os.O_CREAT | os.O_WRONLY, 0o600)
    try:
        os.write(file, line.encode())
    finally:
        os.close(file)


def noted() -> list[dict[str, Any]]:
    return [json.loads(line) for line in EVIDENCE.read_text().splitlines()] if EVIDENCE.exists() else []


async def pause() -> None:
    """Work of a random length; with a file `hold`, until it is gone."""
    await asyncio.sleep(dice.uniform(0, PACE_S))
    while HOLD.exists():
        await asyncio.sleep(0.01)


async def effect(tool: str, number: int, context: ToolContext) -> str:
    facts = {"tool": tool, "n": number, "key": context.key, "run": context.run, "epoch": context.fence}
    note("start", **facts, attempt=context.attempt)
    await pause()
    note("happened", **facts)
    await pause()
    return f"{tool} {number}"


@tool(effect="read")
async def look(n: int, context: ToolContext) -> str:
    """Look something up."""
    return await effect("look", n, context)


@tool(effect="idempotent")
async def put(n: int, context: ToolContext) -> str:
    """Put something at its key."""
    return await effect("put", n, context)


@tool(effect="once")
async def send(n: int, context: ToolContext) -> str:
    """Send something; nobody can tell afterwards whether it arrived."""
    return await effect("send", n, context)


@tool(effect="once")
async def book(n: int, context: ToolContext) -> str:
    """Book something; the ledger knows."""
    return await effect("book", n, context)


@tool(effect="once", approval=True)
async def pay(n: int, context: ToolContext) -> str:
    """Pay; the ledger knows."""
    return await effect("pay", n, context)


@book.reconciles
def booked(key: str) -> str | None:
    return in_ledger(key)


@pay.reconciles
def paid(key: str) -> str | None:
    return in_ledger(key)


def in_ledger(key: str) -> str | None:
    """What the effect with this key answered, if it happened."""
    found = [line for line in noted() if line["what"] == "happened" and line.get("key") == key]
    return f"{found[0]['tool']} {found[0]['n']}" if found else None


def script(*rounds: tuple[str, ...]) -> Any:
    """A model that asks for these tools, round by round, with the number that the user said; then tells the results."""

    async def model(request: ModelRequest) -> ChatReply:
        user = max(at for at, message in enumerate(request.messages) if message.role == "user")
        number = int(request.messages[user].text)
        since = request.messages[user + 1 :]
        step = sum(message.role == "assistant" for message in since)
        note("start", tool="model", n=number, step=step)
        await pause()
        if step < len(rounds):
            arguments = json.dumps({"n": number})
            calls = [ChatCall(f"c{step}-{at}", name, arguments) for at, name in enumerate(rounds[step])]
            return ChatReply("", tuple(calls), finish="tool_calls")
        return ChatReply("; ".join(message.text for message in since if message.role == "tool"))

    return model


chain = Pipeline("chain")


async def step(name: str, message: dict[str, Any], context: StepContext) -> dict[str, Any]:
    data = message["data"]
    number = data["n"]
    facts = {"tool": name, "n": number, "key": context.key, "run": context.run}
    note("start", **facts)
    await pause()
    note("happened", **facts)
    await pause()
    return {"n": number, "way": [*data.get("way", []), name]}


@chain.step(effect="idempotent")
async def fetch(message: dict[str, Any], context: StepContext) -> dict[str, Any]:
    return await step("fetch", message, context)


@chain.step(effect="read", depends_on=["fetch"])
async def check(message: dict[str, Any], context: StepContext) -> dict[str, Any]:
    return await step("check", message, context)


@chain.step(effect="idempotent", depends_on=["check"])
async def store(message: dict[str, Any], context: StepContext) -> dict[str, Any]:
    return await step("store", message, context)


app = App(
    agents=[
        DurableAgent(
            "worker", model=script(("look",), ("put", "send", "book"), ("look",)), tools=[look, put, send, book]
        ),
        DurableAgent("banker", model=script(("look",), ("pay",)), tools=[look, pay]),
        DurableAgent("patient", model=script(("put",), ("put",), ("put",)), tools=[put]),
    ],
    pipelines=[chain],
)
