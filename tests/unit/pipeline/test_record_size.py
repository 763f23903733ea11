"""The record of an agent stays small whatever its handlers answer, and every answer stays within reach."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from functools import partial
from typing import Any

import pytest

from perdure.clock import Clock, SystemClock
from perdure.effect import Effect
from perdure.errors import Failed, Transient
from perdure.pipeline.context import StepContext
from perdure.pipeline.record import BEGUN_HERE, Receipt, RecordBook, _put
from perdure.pipeline.server import MAX_OUTPUT_BYTES, StepCall, StepHandler, StepServer
from perdure.sidecar.memory import MemoryStateStore
from perdure.sidecar.ports import StateStore
from perdure.testing.clock import FakeClock

RECORD = "agents/worker/record"


class UnsureStore(MemoryStateStore):
    """Does the first write of an answer, and does not say so."""

    def __init__(self) -> None:
        super().__init__()
        self.kept = asyncio.Event()

    async def put(self, key: str, value: bytes, *, etag: str | None = None) -> None:
        await super().put(key, value, etag=etag)
        if key == RECORD and b'"done"' in value and not self.kept.is_set():
            self.kept.set()
            raise Transient("store_away", "the store is away")


class WatchedStore(MemoryStateStore):
    """Remembers how long the values were that were written; forgets to answer the writes numbered in `cut`."""

    def __init__(self, cut: int = 0) -> None:
        super().__init__()
        self.longest: dict[str, int] = {}
        self.writes = 0
        self.cut = cut

    async def put(self, key: str, value: bytes, *, etag: str | None = None) -> None:
        self._watch(key, value)
        await super().put(key, value, etag=etag)

    async def create(self, key: str, value: bytes) -> None:
        self._watch(key, value)
        await super().create(key, value)

    def _watch(self, key: str, value: bytes) -> None:
        self.writes += 1
        if self.writes == self.cut:
            raise Transient("store_away", "the store is away")
        self.longest[key] = max(len(value), self.longest.get(key, 0))


def server(
    store: StateStore,
    size: int,
    *,
    effect: Effect = Effect.ONCE,
    life: str = "l",
    text: str = "y",
    clock: Clock | None = None,
) -> StepServer:
    async def work(message: Any, context: StepContext) -> dict[str, Any]:
        n = (await context.get_state()).get("n", 0) + 1
        await context.update_state(n=n)
        return {"n": n, "x": text * size}

    handlers = {"work": StepHandler("work", work, effect, 5)}
    return StepServer("worker", handlers, store, clock=clock or SystemClock(), slot="s", life=life)


def call(i: int) -> StepCall:
    return StepCall(f"k{i}", "run-1", 1, 1, {"data": i})


@pytest.mark.parametrize("effect", list(Effect))
@pytest.mark.parametrize(
    ("size", "text"),
    [(0, "y"), (3_000, '"'), (7_000, '"'), (15_000, "y"), (17_000, "y"), (900_000, "y"), (400_000, "é")],
)
async def test_no_value_grows_beyond_an_output_and_every_answer_is_found(effect: Effect, size: int, text: str) -> None:
    store = WatchedStore()
    steps = server(store, size, effect=effect, text=text)
    answers = [await steps.handle("work", call(i)) for i in range(20)]
    assert store.longest[RECORD] <= 128 * 1024
    assert max(store.longest.values()) <= 1.2 * 1024 * 1024
    later = server(store, size, effect=effect, life="other")
    assert [await later.handle("work", call(i)) for i in range(20)] == answers
    assert [await later.answered(f"k{i}") for i in range(20)] == answers
    assert await later.state() == {"n": 20}


async def test_a_small_answer_and_the_state_are_one_write() -> None:
    store = WatchedStore()
    await server(store, 100, effect=Effect.IDEMPOTENT).handle("work", call(1))
    assert store.writes == 1


async def test_a_small_answer_does_not_write_larger_ones_again() -> None:
    store = WatchedStore()
    for i in range(10):
        await server(store, 100_000, effect=Effect.IDEMPOTENT).handle("work", call(i))
    store.longest.clear()
    await server(store, 10, effect=Effect.IDEMPOTENT).handle("work", call(10))
    assert sum(store.longest.values()) < 4096


async def test_the_largest_output_made_of_quotes_is_kept_as_it_is() -> None:
    store = WatchedStore()
    steps = server(store, (MAX_OUTPUT_BYTES - 100) // 2, text='"')
    answer = await steps.handle("work", call(1))
    assert max(store.longest.values()) <= MAX_OUTPUT_BYTES
    assert await server(store, 1, life="other").handle("work", call(1)) == answer


@pytest.mark.parametrize("size", [5_000, 15_000, 100_000])
async def test_a_write_that_fails_anywhere_loses_no_answer_and_applies_no_change_twice(size: int) -> None:
    """Each write of eighteen steps is the one that fails, followed by another life that repeats every call."""
    whole = WatchedStore()
    for i in range(18):
        await server(whole, size, effect=Effect.IDEMPOTENT).handle("work", call(i))
    for cut in range(1, whole.writes + 1):
        store = WatchedStore(cut)
        answers: dict[int, str] = {}
        for i in range(18):
            try:
                answers[i] = await server(store, size, effect=Effect.IDEMPOTENT).handle("work", call(i))
            except Transient:
                answers[i] = await server(store, size, effect=Effect.IDEMPOTENT, life="other").handle("work", call(i))
        later = server(store, size, effect=Effect.IDEMPOTENT, life="third")
        assert {i: await later.handle("work", call(i)) for i in range(18)} == answers
        assert await later.state() == {"n": 18}


async def test_an_answer_of_an_attempt_that_was_not_recorded_is_not_taken_for_one() -> None:
    """The output is written, the record is not: the next attempt runs the handler again, on the state as it is."""
    store = WatchedStore(cut=2)
    with pytest.raises(Transient):
        await server(store, 100_000, effect=Effect.IDEMPOTENT).handle("work", call(1))
    again = server(store, 50_000, effect=Effect.IDEMPOTENT, life="other")
    assert len(await again.handle("work", call(1))) < 60_000
    assert await again.state() == {"n": 1}


@pytest.mark.parametrize("size", [10, 15_000, 100_000])
async def test_an_answer_that_moved_before_its_writer_knew_that_it_was_kept_is_not_applied_again(size: int) -> None:
    store, clock = UnsureStore(), FakeClock()
    first = asyncio.create_task(server(store, size, clock=clock).handle("work", call(0)))
    await store.kept.wait()
    others = server(store, size, life="other")
    for i in range(1, 20):
        await others.handle("work", call(i))
    while not first.done():
        await clock.advance(1)
    assert (await first).startswith('{"n":1,')
    assert await others.state() == {"n": 20}


async def test_doubts_that_nobody_asks_about_again_do_not_fill_the_record() -> None:
    """Each was cut by the end of its process; whoever asks later is still told."""
    store = WatchedStore()
    await fill(store, 0)
    assert len((await RecordBook(store, "worker").load()).value.receipts) <= BEGUN_HERE
    assert store.longest[RECORD] <= 16 * 1024
    later = server(store, 10, life="later")
    for i in range(2 * BEGUN_HERE):
        with pytest.raises(Failed) as told:
            await later.handle("work", call(i))
        assert told.value.code == "step_in_doubt"


async def test_an_answer_outlives_that_its_beginning_had_moved_out_of_the_record() -> None:
    store = WatchedStore()
    entered, go = asyncio.Event(), asyncio.Event()
    slow = stuck(store, entered, life="slow", go=go)
    asked = asyncio.create_task(slow.handle("work", call(0)))
    await entered.wait()
    await fill(store, 1)
    assert "k0" not in (await RecordBook(store, "worker").load()).value.receipts
    go.set()
    answer = await asked
    assert await server(store, 10, life="later").handle("work", call(0)) == answer
    many = server(store, 10, life="many", effect=Effect.IDEMPOTENT)
    for i in range(1000, 1020):
        await many.handle("work", call(i))
    assert await server(store, 10, life="later").handle("work", call(0)) == answer


async def test_a_handler_that_raises_after_its_beginning_had_moved_may_be_called_again() -> None:
    store = WatchedStore()
    entered, go = asyncio.Event(), asyncio.Event()
    asked = asyncio.create_task(stuck(store, entered, life="slow", go=go, error=OSError("no")).handle("work", call(0)))
    await entered.wait()
    await fill(store, 1)
    go.set()
    with pytest.raises(Failed, match="OSError: no"):
        await asked
    assert (await server(store, 10, life="later").handle("work", call(0))).startswith('{"n":1,')


async def test_a_late_move_of_a_beginning_never_replaces_an_answer() -> None:
    store = WatchedStore()
    await server(store, 10).handle("work", call(0))
    for i in range(1, 20):
        await server(store, 10).handle("work", call(i))
    book = RecordBook(store, "worker")
    moved = book._receipt_of("k0")
    await moved.update(partial(_put, Receipt("begun", call(0).digest, slot="s", life="l")))
    assert (await server(store, 10, life="later").handle("work", call(0))).startswith('{"n":1,')


async def test_a_process_remembers_nothing_of_calls_that_ended() -> None:
    for away in (False, True):
        for error in (None, OSError("no"), Transient("bank_away", "no answer")):
            go = asyncio.Event()
            go.set()
            steps = stuck(WatchedStore(), asyncio.Event(), life="l", go=go, error=error)
            with suppress(Failed):
                await (steps.handle if away else steps.handle_here)("work", call(0))
            assert not steps._unsure
            assert not steps._seen


def stuck(
    store: StateStore, entered: asyncio.Event, *, life: str, go: asyncio.Event | None = None,
    error: Exception | None = None,
) -> StepServer:  # fmt: skip
    """A `once` handler that says when it was entered and goes on when it may, or never."""

    async def work(message: Any, context: StepContext) -> dict[str, Any]:
        entered.set()
        await (go or asyncio.Event()).wait()
        if error is not None:
            raise error
        return {"late": True}

    handlers = {"work": StepHandler("work", work, Effect.ONCE, 5)}
    return StepServer("worker", handlers, store, clock=SystemClock(), slot="s", life=life)


async def fill(store: StateStore, first: int) -> None:
    """So many doubts that the oldest leave the record."""
    for i in range(first, first + 2 * BEGUN_HERE):
        entered = asyncio.Event()
        steps = stuck(store, entered, life=f"life-{i}")
        asked = asyncio.create_task(steps.handle("work", call(i)))
        await entered.wait()
        await steps.drain(0)
        await asyncio.gather(asked, return_exceptions=True)
