"""A step that has answered is never run again; its state, memory and receipt are one write."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from perdure.clock import SystemClock
from perdure.effect import Effect
from perdure.errors import Conflict, Failed, Invalid, NotFound, Transient
from perdure.pipeline.context import StepContext
from perdure.pipeline.record import RECEIPTS_HERE, RecordBook
from perdure.pipeline.server import StepCall, StepHandler, StepServer
from perdure.sidecar.memory import MemoryStateStore
from perdure.sidecar.ports import StateStore
from perdure.testing.clock import FakeClock
from perdure.testing.faults import Fault, FaultPlan, FaultyStateStore

Function = Callable[[Any, StepContext], Awaitable[Any]]


def server(
    function: Function,
    store: StateStore,
    *,
    effect: Effect = Effect.IDEMPOTENT,
    life: str = "life-1",
    slot: str = "slot-1",
    timeout_s: float = 5.0,
    clock: Any = None,
) -> StepServer:
    handlers = {"work": StepHandler("work", function, effect, timeout_s)}
    return StepServer("worker", handlers, store, clock=clock or SystemClock(), slot=slot, life=life)


def call(key: str = "k", fence: int = 1, attempt: int = 1, **data: Any) -> StepCall:
    return StepCall(key, "run-1", attempt, fence, {"data": data})


async def counting(message: Any, context: StepContext) -> dict[str, Any]:
    state = await context.get_state()
    await context.update_state(count=state.get("count", 0) + 1)
    await context.set_memory(f"m{state.get('count', 0) + 1}", message["data"])
    return {"count": state.get("count", 0) + 1}


async def test_a_repeated_call_is_answered_from_its_receipt_in_another_life() -> None:
    store = MemoryStateStore()
    assert await server(counting, store).handle("work", call()) == '{"count":1}'
    later = server(counting, store, life="life-2")
    assert await later.handle("work", call(fence=7, attempt=3)) == '{"count":1}'
    assert await later.state() == {"count": 1}


async def test_receipts_and_memory_outlive_the_document_they_were_first_written_to() -> None:
    store = MemoryStateStore()
    steps = server(counting, store)
    for i in range(3 * RECEIPTS_HERE):
        await steps.handle("work", call(f"k{i}", i=i))
    record = (await RecordBook(store, "worker").load()).value
    assert len(record.receipts) <= RECEIPTS_HERE
    assert len(record.fresh) == 1
    for i in range(3 * RECEIPTS_HERE):
        assert await steps.handle("work", call(f"k{i}", i=i)) == f'{{"count":{i + 1}}}'
        assert await steps.memory(f"m{i + 1}") == {"i": i}


async def test_concurrent_steps_of_two_replicas_lose_no_update() -> None:
    store = MemoryStateStore()
    one, two = server(counting, store), server(counting, store, life="life-2", slot="slot-2")
    calls = [replica.handle("work", call(f"k{i}-{n}")) for i in range(10) for n, replica in enumerate((one, two))]
    answers = await asyncio.gather(*calls)
    assert await one.state() == {"count": 20}
    assert sorted(answers) == sorted(f'{{"count":{n}}}' for n in range(1, 21))


async def test_two_callers_at_once_share_one_run_of_the_handler() -> None:
    runs = 0
    go = asyncio.Event()

    async def slow(message: Any, context: StepContext) -> dict[str, Any]:
        nonlocal runs
        runs += 1
        await go.wait()
        return {}

    steps = server(slow, MemoryStateStore())
    asked = [asyncio.create_task(steps.handle("work", call())) for _ in range(3)]
    await asyncio.sleep(0.01)
    asked[0].cancel()  # who asked goes away; the handler goes on for the others
    go.set()
    assert await asyncio.gather(*asked[1:]) == ["{}", "{}"]
    assert runs == 1


async def test_the_same_key_with_another_message_is_refused() -> None:
    steps = server(counting, MemoryStateStore())
    await steps.handle("work", call(x=1))
    with pytest.raises(Conflict) as told:
        await steps.handle("work", call(x=2))
    assert told.value.code == "key_reused"


async def test_an_unknown_step_names_the_known_ones() -> None:
    with pytest.raises(NotFound, match=r"'wrok' is unknown at worker; known: work"):
        await server(counting, MemoryStateStore()).handle("wrok", call())


async def test_a_handler_that_raises_changes_nothing_and_may_be_tried_again() -> None:
    attempts = 0

    async def moody(message: Any, context: StepContext) -> dict[str, Any]:
        nonlocal attempts
        attempts += 1
        await context.update_state(half=True)
        if attempts == 1:
            raise RuntimeError("not today")
        return {"attempt": context.attempt}

    for effect in Effect:
        attempts = 0
        steps = server(moody, MemoryStateStore(), effect=effect)
        with pytest.raises(Failed, match="RuntimeError: not today"):
            await steps.handle("work", call())
        assert await steps.state() == {}
        assert await steps.handle("work", call(attempt=2)) == '{"attempt":2}'


async def test_a_once_handler_that_was_cut_is_in_doubt_for_the_next_life_of_its_slot() -> None:
    store = MemoryStateStore()
    entered, runs = asyncio.Event(), 0

    async def hangs(message: Any, context: StepContext) -> dict[str, Any]:
        nonlocal runs
        runs += 1
        entered.set()
        await asyncio.Event().wait()
        return {}

    first = server(hangs, store, effect=Effect.ONCE)
    asked = asyncio.create_task(first.handle("work", call()))
    await entered.wait()
    await first.drain(0)
    await asyncio.gather(asked, return_exceptions=True)
    with pytest.raises(Failed) as told:
        await server(hangs, store, effect=Effect.ONCE, life="life-2").handle("work", call(fence=2))
    assert told.value.code == "step_in_doubt"
    assert runs == 1


async def test_another_replica_waits_for_a_once_handler_as_long_as_it_may_run_then_doubts() -> None:
    store, clock = MemoryStateStore(), FakeClock()
    entered = asyncio.Event()

    async def hangs(message: Any, context: StepContext) -> dict[str, Any]:
        entered.set()
        await asyncio.Event().wait()
        return {}

    first = server(hangs, store, effect=Effect.ONCE)
    asked = asyncio.create_task(first.handle("work", call()))
    await entered.wait()
    other = server(hangs, store, effect=Effect.ONCE, slot="slot-2", life="life-2", clock=clock)
    with pytest.raises(Transient) as busy:
        await other.handle("work", call())
    assert busy.value.code == "step_running"
    await clock.advance(6)
    with pytest.raises(Failed) as doubt:
        await other.handle("work", call())
    assert doubt.value.code == "step_in_doubt"
    await first.drain(0)
    await asyncio.gather(asked, return_exceptions=True)


async def test_a_store_that_loses_answers_makes_no_once_handler_run_twice() -> None:
    runs = 0

    async def work(message: Any, context: StepContext) -> dict[str, Any]:
        nonlocal runs
        runs += 1
        await context.update_state_with(lambda state: {"done": state.get("done", 0) + 1})
        return {}

    faults = [Fault.UNANSWERED, Fault.LOST, Fault.UNANSWERED, Fault.LOST, Fault.LOST, Fault.UNANSWERED]
    inner = MemoryStateStore()
    steps = server(work, FaultyStateStore(inner, FaultPlan(writes=faults), settle_s=0.01), effect=Effect.ONCE)
    for _ in range(10):
        try:
            answer = await steps.handle("work", call())
            break
        except Transient:
            continue
    assert answer == "{}"
    assert runs == 1
    assert await server(work, inner).state() == {"done": 1}


@pytest.mark.parametrize("output", [5, "text", [1], {"x": object()}])
async def test_an_output_that_is_no_json_object_is_a_fault_of_the_handler(output: Any) -> None:
    async def odd(message: Any, context: StepContext) -> Any:
        return output

    with pytest.raises(Failed) as told:
        await server(odd, MemoryStateStore()).handle("work", call())
    assert told.value.code == "step_output_wrong"


async def test_a_handler_that_takes_too_long_is_cut() -> None:
    async def hangs(message: Any, context: StepContext) -> None:
        await asyncio.Event().wait()

    with pytest.raises(Failed) as told:
        await server(hangs, MemoryStateStore(), timeout_s=0.01).handle("work", call())
    assert told.value.code == "step_timed_out"


async def test_a_once_handler_whose_own_call_had_no_outcome_is_in_doubt_and_not_called_again() -> None:
    runs = 0

    async def pays(message: Any, context: StepContext) -> None:
        nonlocal runs
        runs += 1
        raise Transient("bank_away", "the bank did not answer")

    steps = server(pays, MemoryStateStore(), effect=Effect.ONCE)
    for _ in range(2):
        with pytest.raises(Failed) as told:
            await steps.handle("work", call())
        assert told.value.code == "step_in_doubt"
    assert runs == 1


async def test_here_nothing_is_written_for_a_handler_that_changed_nothing() -> None:
    async def pure(message: Any, context: StepContext) -> None:
        return None

    store = MemoryStateStore()
    assert await server(pure, store, effect=Effect.ONCE).handle_here("work", call()) == "null"
    assert await store.get("agents/worker/record") is None


async def test_state_is_the_memory_called_state_and_only_an_object_fits() -> None:
    async def work(message: Any, context: StepContext) -> dict[str, Any]:
        await context.set_memory("state", {"a": 1})
        await context.update_state(b=2)
        assert await context.get_memory("state") == await context.get_state()
        with pytest.raises(KeyError):
            await context.get_memory("nothing")
        with pytest.raises(Invalid):
            await context.set_memory("state", 5)
        return await context.get_state()

    assert await server(work, MemoryStateStore()).handle("work", call()) == '{"a":1,"b":2}'
