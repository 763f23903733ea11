"""What asking a model and calling a tool leave behind: spans, figures, a context for the tool, an outcome."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine, Iterator
from typing import Any

import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from prometheus_client import CollectorRegistry

from perdure.agent.agent import DurableAgent
from perdure.llm.scripted import ScriptedModel
from perdure.observability.metrics import make_metrics
from perdure.observability.tracing import tracer_of
from perdure.run.event import Doubted, Settled, Unreconciled
from perdure.run.kind import Act, Doing
from perdure.sidecar.ports import ChatReply
from perdure.testing.clock import FakeClock
from perdure.tools import ToolContext, tool
from perdure.turn.decide import ToolAction
from perdure.turn.kind import TurnKind
from turn_loop import Loop, asks, call

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
DOING = Doing("subject.1.2.1", "subject-1", 2, 7, trace=PARENT, by="ann")


@pytest.fixture
def exported() -> InMemorySpanExporter:
    return InMemorySpanExporter()


@pytest.fixture
def provider(exported: InMemorySpanExporter) -> Iterator[TracerProvider]:
    made = TracerProvider(shutdown_on_exit=False)
    made.add_span_processor(SimpleSpanProcessor(exported))
    yield made
    made.shutdown()


def spans(exported: InMemorySpanExporter) -> dict[str, ReadableSpan]:
    return {span.name: span for span in exported.get_finished_spans()}


@tool
def pay(amount: int, context: ToolContext) -> str:
    if amount > 10:
        raise ValueError("too much")
    return f"{context.key} {context.attempt} {context.fence} {context.session} {context.run} {context.caller}"


async def actions_of(loop: Loop) -> list[object]:
    verdict = loop.kind.decide(loop.view.state, loop.view.control)
    assert isinstance(verdict, Act)
    return list(verdict.actions)


async def a_call(amount: int = 1) -> Loop:
    """A session whose next action is to pay."""
    loop = Loop.of(DurableAgent("a", tools=[pay]), asks(call("pay", f'{{"amount": {amount}}}')), "ok")
    loop.say("go")
    await loop.step()
    return loop


async def test_a_tool_is_told_about_its_call() -> None:
    loop = await a_call()
    [action] = await actions_of(loop)
    [settled] = await loop.kind.do(action, DOING)  # type: ignore[arg-type]
    assert settled == Settled("1.2.1", "subject.1.2.1 2 7 s-1 subject-1 ann")


async def test_spans_belong_to_the_trace_in_which_the_turn_was_accepted(
    provider: TracerProvider, exported: InMemorySpanExporter
) -> None:
    loop = await a_call(amount=11)
    [action] = await actions_of(loop)
    model = ScriptedModel([ChatReply("hi", input_tokens=3, output_tokens=4)])
    kind = TurnKind(loop.agent, model, clock=FakeClock(), tracer=tracer_of(provider))
    await kind.do(action, DOING)  # type: ignore[arg-type]
    fresh = Loop(loop.agent, model)
    fresh.say("hello")
    [ask] = await actions_of(fresh)
    await kind.do(ask, DOING)  # type: ignore[arg-type]
    paid, chat = spans(exported)["execute_tool pay"], spans(exported)["chat scripted"]
    for span in (paid, chat):
        assert span.parent is not None
        assert f"{span.parent.span_id:016x}" == PARENT.split("-")[2]
    assert paid.attributes is not None
    assert paid.attributes["gen_ai.tool.name"] == "pay"
    assert paid.attributes["error.type"] == "failed"
    assert "gen_ai.tool.call.arguments" not in paid.attributes
    assert chat.attributes is not None
    assert chat.attributes["gen_ai.usage.input_tokens"] == 3
    assert chat.attributes["gen_ai.conversation.id"] == "s-1"


async def test_calls_are_counted_by_outcome() -> None:
    registry = CollectorRegistry()
    loop = await a_call(amount=11)
    [action] = await actions_of(loop)
    kind = TurnKind(loop.agent, ScriptedModel(["hi"]), clock=FakeClock(), metrics=make_metrics(registry))
    await kind.do(action, DOING)  # type: ignore[arg-type]
    fresh = Loop(loop.agent, ScriptedModel(["hi"]))
    fresh.say("hello")
    [ask] = await actions_of(fresh)
    await kind.do(ask, DOING)  # type: ignore[arg-type]
    assert registry.get_sample_value("perdure_tool_calls_total", {"tool": "pay", "outcome": "failed"}) == 1
    assert registry.get_sample_value("perdure_model_calls_total", {"model": "scripted", "outcome": "ok"}) == 1


@pytest.mark.parametrize(("known", "said"), [("paid", Settled("1.2.1", "paid")), (None, False), ("raise", None)])
async def test_reconciliation_says_done_not_done_or_unknown(known: str | None, said: object) -> None:
    asked: list[str] = []

    @tool(name="pay")
    def careful(amount: int) -> str:
        return "paid"

    @careful.reconciles
    def look_up(key: str) -> str | None:
        asked.append(key)
        if known == "raise":
            raise ConnectionError("away")
        return known

    loop = Loop.of(DurableAgent("a", tools=[careful]), asks(call("pay", '{"amount": 1}')), "ok")
    loop.say("go")
    await loop.step()
    [action] = await actions_of(loop)
    assert await loop.kind.reconcile(action, DOING) == said  # type: ignore[arg-type]
    assert asked == ["subject.1.2.1"]


@pytest.mark.parametrize("finish", ["content_filter", "length"])
async def test_a_model_that_was_stopped_before_it_said_anything_fails_the_turn(finish: str) -> None:
    model = ScriptedModel([ChatReply("", finish=finish)])
    loop = Loop(DurableAgent("a"), model)
    loop.say("go")
    [ask] = await actions_of(loop)
    [failed] = await loop.kind.do(ask, DOING)  # type: ignore[arg-type]
    assert failed.code == "model_said_nothing"
    assert finish in failed.message


async def test_a_once_call_cut_while_its_thread_runs_is_not_to_be_reconciled_by_anybody() -> None:
    """A replica that looks while the thread of the last one still writes would find nothing, and pay again."""
    release = threading.Event()

    @tool
    def transfer() -> str:
        release.wait(30)
        return "paid"

    @transfer.reconciles
    async def found(key: str) -> str | None:
        return None

    loop = Loop.of(DurableAgent("a", tools=[transfer]), asks(call("transfer")), "ok")
    loop.say("go")
    await loop.step()
    [action] = await actions_of(loop)
    assert isinstance(action, ToolAction)
    try:
        doing = await cut(loop.kind.do(action, DOING))
        assert doing == [Doubted(action.key, "cut while its thread runs"), Unreconciled(action.key)]
        assert await cut(loop.kind.reconcile(action, DOING)) is None
    finally:
        release.set()


async def cut(work: Coroutine[Any, Any, object]) -> object:
    """What `work` says when it is cancelled at its first wait."""
    task = asyncio.create_task(work)
    await asyncio.sleep(0)
    task.cancel()
    return await task
