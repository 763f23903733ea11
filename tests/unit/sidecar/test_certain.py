"""After a write with an unknown outcome, the store is asked, and the truth is told."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perdure.errors import Conflict, SidecarUnavailable
from perdure.sidecar.memory import MemoryStateStore
from perdure.testing.clock import FakeClock
from perdure.testing.faults import Fault, FaultPlan, FaultyStateStore

LOST, UNANSWERED, LATE, SLOW, NONE = Fault.LOST, Fault.UNANSWERED, Fault.LATE, Fault.SLOW, Fault.NONE


async def eventually(clock: FakeClock, work: asyncio.Task[None]) -> None:
    while not work.done():
        await clock.advance(0.05)
    work.result()


async def test_a_create_that_was_written_without_an_answer_is_recognised_as_ones_own() -> None:
    inner = MemoryStateStore()
    store = FaultyStateStore(inner, FaultPlan(writes=[UNANSWERED]))
    await store.create("k", b"mine")
    found = await inner.get("k")
    assert found is not None
    assert (found.value, found.etag) == (b"mine", "1")


async def test_a_create_that_was_lost_is_sent_again_as_it_was() -> None:
    inner, clock = MemoryStateStore(), FakeClock()
    store = FaultyStateStore(inner, FaultPlan(writes=[LOST, LOST, UNANSWERED]), clock=clock)
    await eventually(clock, asyncio.ensure_future(store.create("k", b"mine")))
    found = await inner.get("k")
    assert found is not None
    assert found.value == b"mine"


async def test_a_create_refused_for_anothers_bytes_conflicts() -> None:
    inner = MemoryStateStore()
    await inner.create("k", b"theirs")
    with pytest.raises(Conflict) as caught:
        await FaultyStateStore(inner, FaultPlan()).create("k", b"mine")
    assert caught.value.code == "key_taken"


async def test_a_late_first_send_changes_nothing_after_the_second_arrived() -> None:
    inner, clock = MemoryStateStore(), FakeClock()
    store = FaultyStateStore(inner, FaultPlan(writes=[LATE]), clock=clock)
    await eventually(clock, asyncio.ensure_future(store.create("k", b"mine")))
    before = await inner.get("k")
    await store.faulty.release()
    assert await inner.get("k") == before


async def test_a_late_put_with_an_etag_cannot_overwrite_what_came_after() -> None:
    inner, clock = MemoryStateStore(), FakeClock()
    await inner.create("k", b"0")
    store = FaultyStateStore(inner, FaultPlan(writes=[LATE]), clock=clock)
    await eventually(clock, asyncio.ensure_future(store.put("k", b"1", etag="1")))
    await store.put("k", b"2", etag="2")
    await store.faulty.release()
    found = await inner.get("k")
    assert found is not None
    assert found.value == b"2"


async def test_a_put_written_without_an_answer_is_recognised_as_ones_own() -> None:
    inner = MemoryStateStore()
    await inner.create("k", b"0")
    store = FaultyStateStore(inner, FaultPlan(writes=[UNANSWERED]))
    await store.put("k", b"1", etag="1")
    found = await inner.get("k")
    assert found is not None
    assert (found.value, found.etag) == (b"1", "2")


async def test_a_put_of_a_key_deleted_meanwhile_conflicts() -> None:
    inner = MemoryStateStore()
    await inner.create("k", b"0")
    await inner.delete("k")
    with pytest.raises(Conflict) as caught:
        await FaultyStateStore(inner, FaultPlan()).put("k", b"1", etag="1")
    assert caught.value.code == "etag_stale"


async def test_a_delete_without_an_answer_is_done() -> None:
    inner = MemoryStateStore()
    await inner.create("k", b"0")
    await FaultyStateStore(inner, FaultPlan(writes=[UNANSWERED])).delete("k", etag="1")
    assert await inner.get("k") is None


async def test_a_store_that_stays_away_is_told_when_the_time_is_up_and_not_before() -> None:
    clock = FakeClock()
    plan = FaultPlan(writes=[LOST] * 1000, reads=[LOST] * 1000)
    store = FaultyStateStore(MemoryStateStore(), plan, settle_s=2.0, clock=clock)
    creating = asyncio.ensure_future(store.create("k", b"mine"))
    await clock.advance(1.9)
    assert not creating.done()
    await clock.advance(0.5)
    with pytest.raises(SidecarUnavailable, match="repeat the identical call") as caught:
        await creating
    assert caught.value.code == "write_unsettled"


async def test_a_read_lost_while_settling_is_asked_again() -> None:
    inner, clock = MemoryStateStore(), FakeClock()
    store = FaultyStateStore(inner, FaultPlan(writes=[UNANSWERED, UNANSWERED], reads=[LOST, LOST]), clock=clock)
    await eventually(clock, asyncio.ensure_future(store.create("k", b"mine")))
    found = await inner.get("k")
    assert found is not None
    assert found.etag == "1"


@settings(max_examples=150, deadline=None)
@given(
    plans=st.lists(st.lists(st.sampled_from([NONE, LOST, UNANSWERED, LATE, SLOW]), max_size=6), min_size=2, max_size=5)
)
async def test_whatever_is_lost_late_or_reordered_one_creator_wins_and_all_know(plans: list[list[Fault]]) -> None:
    """Promise 3: two writers never both believe that a commit is theirs."""
    inner, clock = MemoryStateStore(), FakeClock()
    stores = [FaultyStateStore(inner, FaultPlan(writes=plan), clock=clock) for plan in plans]

    async def attempt(number: int) -> bool:
        try:
            await stores[number].create("k", f"driver {number}".encode())
        except Conflict:
            return False
        return True

    attempts = [asyncio.ensure_future(attempt(number)) for number in range(len(stores))]
    while not all(task.done() for task in attempts):
        await clock.advance(0.02)
        for store in stores[::2]:
            await store.faulty.release()
    for store in stores:
        await store.faulty.release()
    won = [task.result() for task in attempts]
    found = await inner.get("k")
    assert found is not None
    assert won.count(True) == 1
    assert found.value == f"driver {won.index(True)}".encode()
    assert found.etag == "1"
