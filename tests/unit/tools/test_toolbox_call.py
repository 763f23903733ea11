"""Calling tools: what they return, raise, and how long they may take."""

from __future__ import annotations

import asyncio
import pickle
import threading
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import date
from typing import Any

import pytest
from pydantic import BaseModel

from perdure.tools import (
    EndTurn,
    ParsedCall,
    ReconciledAs,
    Toolbox,
    ToolContext,
    ToolResult,
    ToolTimedOut,
    tool,
)

CONTEXT = ToolContext("key-1", attempt=2, fence=7, session="s", run="r", caller="ann")
USER: ContextVar[str] = ContextVar("user", default="nobody")


class Room(BaseModel):
    """A room."""

    number: int


@dataclass
class Bed:
    """A bed."""

    length: float


async def call(function: Any, text: str = "{}", context: ToolContext = CONTEXT) -> ToolResult:
    box = Toolbox([function])
    (name,) = box
    parsed = box.validate(name, text)
    assert isinstance(parsed, ParsedCall), parsed
    return await box.call(parsed, context)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("as it is", "as it is"),
        (Room(number=1), '{"number":1}'),
        ([Bed(2.0), date(2026, 1, 1)], '[{"length":2.0},"2026-01-01"]'),
        ({"a": None, "b": {1}}, '{"a":null,"b":[1]}'),
        (None, "null"),
        (float("nan"), '"NaN"'),
    ],
)
async def test_results_are_text_or_json(value: Any, text: str) -> None:
    def give() -> Any:
        return value

    assert await call(give) == ToolResult(text)


@pytest.mark.parametrize("value", [object(), b"\xff", "\ud800", threading.Lock()])
async def test_a_result_that_is_no_json_is_an_error_that_says_so(value: Any) -> None:
    def give() -> Any:
        return value

    result = await call(give)
    assert result.is_error
    assert "The tool ran, but its result" in result.text


async def test_sync_functions_run_beside_the_loop_with_the_callers_context_variables() -> None:
    def where() -> list[Any]:
        return [threading.current_thread() is threading.main_thread(), USER.get()]

    USER.set("ann")
    assert (await call(where)).text == '[false,"ann"]'


async def test_the_context_is_handed_over() -> None:
    async def seen(x: int, ctx: ToolContext) -> str:
        return f"{x} {ctx.key} {ctx.attempt} {ctx.fence} {ctx.session} {ctx.run} {ctx.caller}"

    assert (await call(seen, '{"x": 1}')).text == "1 key-1 2 7 s r ann"


async def test_progress_reaches_its_listener_on_the_loop() -> None:
    told: list[tuple[str, bool]] = []
    arrived = asyncio.Event()

    def listen(text: str) -> None:
        told.append((text, threading.current_thread() is threading.main_thread()))
        arrived.set()

    def work(ctx: ToolContext) -> None:
        ctx.progress("half")

    await call(work, context=ToolContext("k", progress=listen))
    await arrived.wait()
    assert told == [("half", True)]


async def test_what_a_tool_raises_is_told_without_a_traceback() -> None:
    async def fail() -> None:
        raise ValueError("no room\n" + "x" * 5000)

    result = await call(fail)
    assert result.is_error
    assert result.text.startswith("ValueError: no room\n")
    assert "Traceback" not in result.text
    assert len(result.text) < 2100


@pytest.mark.parametrize("error", [StopIteration("end"), asyncio.CancelledError("inner"), TimeoutError("own")])
async def test_odd_exceptions_of_a_tool_are_results_too(error: BaseException) -> None:
    def fail() -> None:
        raise error

    assert (await call(fail)).is_error


async def test_end_turn_ends_the_turn() -> None:
    def fail() -> None:
        raise EndTurn("the hotel is closed", hotel="Ritz")

    with pytest.raises(EndTurn) as caught:
        await call(fail)
    copy = pickle.loads(pickle.dumps(caught.value))  # noqa: S301 - our own bytes
    assert (copy.code, copy.message, copy.details) == ("turn_ended_by_tool", "the hotel is closed", {"hotel": "Ritz"})


@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt])
async def test_the_end_of_the_process_is_not_swallowed(kind: type[BaseException]) -> None:
    class Raising:
        """Leaves `await` as the loop would raise it."""

        def __await__(self) -> Any:
            yield from self.leave()

        def leave(self) -> Any:
            raise kind

    async def leave() -> None:
        await Raising()

    box = Toolbox([leave])
    parsed = box.validate("leave", "{}")
    assert isinstance(parsed, ParsedCall)
    coroutine = box.call(parsed, CONTEXT)
    with pytest.raises(kind):
        await coroutine


@pytest.mark.parametrize("blocking", [True, False])
async def test_a_tool_past_its_limit_is_in_doubt(blocking: bool) -> None:
    release = threading.Event()

    @tool(timeout_s=0.01)
    def block() -> None:
        """Block."""
        release.wait(30)

    @tool(timeout_s=0.01)
    async def wait() -> None:
        """Wait."""
        await asyncio.Event().wait()

    try:
        with pytest.raises(ToolTimedOut, match="did not return within") as caught:
            await call(block if blocking else wait)
    finally:
        release.set()
    assert caught.value.code == "tool_timed_out"


async def test_cancelling_the_caller_cancels_the_tool() -> None:
    begun, ended = asyncio.Event(), asyncio.Event()

    async def wait() -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    task = asyncio.create_task(call(wait))
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert ended.is_set()


async def test_more_hanging_tools_than_a_thread_pool_holds_do_not_stop_others() -> None:
    release = threading.Event()

    @tool(timeout_s=None)
    def hang() -> str:
        """Hang."""
        release.wait(30)
        return "released"

    def quick() -> str:
        return "quick"

    hanging = [asyncio.create_task(call(hang)) for _ in range(40)]
    try:
        assert (await call(quick)).text == "quick"
    finally:
        release.set()
    assert {result.text for result in await asyncio.gather(*hanging)} == {"released"}


async def test_reconcile_says_done_not_done_or_unknown() -> None:
    @tool
    async def pay(amount: int) -> str:
        """Pay."""
        return "paid"

    box = Toolbox([pay])
    parsed = box.validate("pay", '{"amount": 3}')
    assert isinstance(parsed, ParsedCall)
    assert (await box.reconcile(parsed, "k")).state is ReconciledAs.UNKNOWN

    @pay.reconciles
    def paid(key: str, arguments: dict[str, Any]) -> dict[str, Any] | None:
        if key == "broken":
            raise ConnectionError("bank is closed")
        return {"key": key, **arguments} if key == "known" else None

    assert (await box.reconcile(parsed, "other")).state is ReconciledAs.NOT_DONE
    assert (await box.reconcile(parsed, "known")).result == ToolResult('{"key":"known","amount":3}')
    unknown = await box.reconcile(parsed, "broken")
    assert (unknown.state, unknown.reason) == (ReconciledAs.UNKNOWN, "ConnectionError: bank is closed")


class SlowPayment:
    """A tool that blocks in its thread past its limit until `release` is set, then pays."""

    def __init__(self) -> None:
        self.paid: list[str] = []
        self.release = threading.Event()

        @tool(timeout_s=0.1)
        def pay(context: ToolContext) -> str:
            """Pay."""
            self.release.wait(30)
            self.paid.append(context.key)
            return "paid"

        @pay.reconciles
        def found(key: str) -> str | None:
            return "paid" if key in self.paid else None

        self.box = Toolbox([pay])
        parsed = self.box.validate("pay", "{}")
        assert isinstance(parsed, ParsedCall)
        self.parsed = parsed

    async def cut(self) -> None:
        with pytest.raises(ToolTimedOut):
            await self.box.call(self.parsed, CONTEXT)


async def test_a_call_whose_thread_still_runs_is_reconciled_after_its_thread_has_ended() -> None:
    slow = SlowPayment()
    await slow.cut()
    assert slow.box.working("key-1")
    asking = asyncio.create_task(slow.box.reconcile(slow.parsed, "key-1"))
    await asyncio.sleep(0)
    slow.release.set()
    assert (await asking).state is ReconciledAs.DONE
    assert not slow.box.working("key-1")
    assert (await slow.box.reconcile(slow.parsed, "key-2")).state is ReconciledAs.NOT_DONE


async def test_a_call_whose_thread_outlives_the_limit_again_is_unknown_and_never_not_done() -> None:
    slow = SlowPayment()
    await slow.cut()
    try:
        said = await slow.box.reconcile(slow.parsed, "key-1")
    finally:
        slow.release.set()
    assert said.state is ReconciledAs.UNKNOWN
    assert "still runs" in said.reason


async def test_a_cancelled_call_leaves_its_thread_known_also_to_the_next_loop() -> None:
    slow = SlowPayment()

    async def cut_by_cancellation() -> None:
        task = asyncio.create_task(slow.box.call(slow.parsed, CONTEXT))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    await asyncio.to_thread(asyncio.run, cut_by_cancellation())
    assert slow.box.working("key-1")
    slow.release.set()
    assert (await slow.box.reconcile(slow.parsed, "key-1")).state is ReconciledAs.DONE


async def test_a_thread_that_ended_without_an_effect_leaves_the_call_not_done() -> None:
    release = threading.Event()

    @tool(timeout_s=0.1)
    def pay() -> None:
        """Pay."""
        release.wait(30)
        raise ConnectionError("bank is closed")

    @pay.reconciles
    async def found(key: str) -> str | None:
        return None

    box = Toolbox([pay])
    parsed = box.validate("pay", "{}")
    assert isinstance(parsed, ParsedCall)
    with pytest.raises(ToolTimedOut):
        await box.call(parsed, CONTEXT)
    release.set()
    assert (await box.reconcile(parsed, "key-1")).state is ReconciledAs.NOT_DONE
