"""Appending, and what becomes of an append whose outcome is unknown."""

from __future__ import annotations

import asyncio
import tracemalloc
from dataclasses import dataclass

import pytest

from perdure.errors import Broken, Conflict, Invalid, Transient
from perdure.log.keys import MARK
from unit.log.stores import WatchedStore, log_over, write


@dataclass(frozen=True, slots=True)
class Said:
    text: str


async def test_an_append_is_one_key_and_says_what_a_reader_will_find() -> None:
    """Events may be objects; the stamp that comes back is that of the commit that a reader gets."""
    store = WatchedStore()
    log = log_over(store)

    first = await log.append([Said("hello"), {"kind": "claimed"}], epoch=3, driver="d-1")
    second = await log.append([Said("again")], epoch=3, driver="d-1")

    assert (first.n, first.prev, first.epoch, first.driver, first.at) == (
        1,
        "",
        3,
        "d-1",
        "2026-01-31T08:00:00.000000Z",
    )
    assert (second.n, second.prev, log.n, log.last_id) == (2, first.id, 2, second.id)
    assert len(store.created) == 2
    read = await log_over(store).read_on()
    assert [commit.events for commit in read] == [({"text": "hello"}, {"kind": "claimed"}), ({"text": "again"},)]
    assert [(commit.id, commit.prev, commit.at) for commit in read] == [
        (stamp.id, stamp.prev, stamp.at) for stamp in (first, second)
    ]


async def test_little_is_written_beside_the_events() -> None:
    """Names are short on the wire, as every turn writes several commits."""
    store = WatchedStore()
    await log_over(store).append([], epoch=1, driver="0" * 32)
    assert store.written < 200


async def test_commits_in_memory_are_as_large_as_their_text() -> None:
    """What is kept until the segment closes holds no spare room, and can be given back."""
    log = log_over(WatchedStore())
    await write(log, 1)
    tracemalloc.start()
    try:
        await write(log, 50, size=1000)
        kept, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert kept < 50 * 2 * 1500


async def test_who_lost_the_race_appends_nothing_and_reads_on() -> None:
    """A conflict leaves the position where it was; reading on shows who was faster."""
    store = WatchedStore()
    winner, loser = log_over(store), log_over(store)
    won = await winner.append([Said("first")], epoch=1, driver="a")

    with pytest.raises(Conflict) as caught:
        await loser.append([Said("second")], epoch=1, driver="b")

    assert caught.value.code == "log_moved"
    assert loser.n == 0
    assert [commit.id for commit in await loser.read_on()] == [won.id]
    assert (await loser.append([Said("second")], epoch=1, driver="b")).n == 2


@pytest.mark.parametrize("failure", ["refused", "lost"])
async def test_reading_on_settles_an_append_without_an_answer(failure: str) -> None:
    """Written or not, the identical bytes are sent again, and the commit is read like any other."""
    store = WatchedStore()
    log = log_over(store)
    store.failures = [failure]

    with pytest.raises(Transient):
        await log.append([Said("once")], epoch=1, driver="a")
    read = await log.read_on()

    assert [commit.events for commit in read] == [({"text": "once"},)]
    assert store.created[0] == store.created[1]
    assert await log.read_on() == ()
    assert log.n == 1


async def test_nothing_is_appended_before_the_last_append_is_settled() -> None:
    """Appending over an unknown outcome settles it and sends the caller back to the fold."""
    store = WatchedStore()
    log = log_over(store)
    store.failures = ["refused", "refused"]
    for _ in range(2):
        with pytest.raises(Transient):
            await log.append([Said("once")], epoch=1, driver="a")

    with pytest.raises(Conflict) as caught:
        await log.append([Said("other")], epoch=1, driver="a")

    assert caught.value.code == "log_moved"
    assert len(set(store.created)) == 1
    assert [commit.events for commit in await log.read_on()] == [({"text": "once"},)]


async def test_an_unsettled_append_that_was_overtaken_is_not_appended() -> None:
    """Somebody else's commit at the same number wins, and ours is nowhere."""
    store = WatchedStore()
    log, other = log_over(store), log_over(store)
    store.failures = ["refused"]
    with pytest.raises(Transient):
        await log.append([Said("mine")], epoch=1, driver="a")
    theirs = await other.append([Said("theirs")], epoch=1, driver="b")

    assert [commit.id for commit in await log.read_on()] == [theirs.id]
    assert await other.read_on() == ()


async def test_an_own_commit_that_was_retired_meanwhile_is_recognised() -> None:
    """A lost answer, then another replica closes and retires: the commit comes back from its segment."""
    store = WatchedStore()
    log, other = log_over(store), log_over(store)
    store.failures = ["lost"]
    with pytest.raises(Transient):
        await log.append([Said("mine")], epoch=1, driver="a")
    await other.read_on()
    await other.close_segment(None)
    await other.retire(2)
    assert (await store.get(log.next_key)).value == MARK  # type: ignore[union-attr]

    assert [commit.events for commit in await log.read_on()] == [({"text": "mine"},)]


async def test_a_cancelled_append_is_settled_like_one_without_an_answer() -> None:
    """Who cancels the caller does not learn whether the write was done; the log finds out."""
    store = WatchedStore()
    log = log_over(store)
    store.failures = ["hangs"]
    task = asyncio.create_task(log.append([Said("cut")], epoch=1, driver="a"))
    while not store.written:
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    assert [commit.events for commit in await log.read_on()] == [({"text": "cut"},)]


async def test_two_appends_at_once_are_refused() -> None:
    """The caller holds one lock per subject; without it the log says so and changes nothing."""
    store = WatchedStore()
    log = log_over(store)
    results = await asyncio.gather(
        log.append([Said("a")], epoch=1, driver="a"),
        log.append([Said("b")], epoch=1, driver="a"),
        return_exceptions=True,
    )
    assert isinstance(results[1], Broken)
    assert results[1].code == "log_in_use"
    assert len(store.created) == 1


async def test_an_event_that_is_not_json_is_refused() -> None:
    """Nothing is written, and the log goes on."""
    store = WatchedStore()
    log = log_over(store)
    with pytest.raises(Invalid) as caught:
        await log.append([object()], epoch=1, driver="a")
    assert caught.value.code == "event_unwritable"
    assert not store.created
    assert (await log.append([Said("fine")], epoch=1, driver="a")).n == 1


async def test_large_events_become_a_blob_in_parts() -> None:
    """Commits stay small, no part is above 1 MiB, and a reader does not notice."""
    store = WatchedStore()
    log = log_over(store)
    text = "long " * 500_000

    stamp = await log.append([Said(text)], epoch=1, driver="a")

    *parts, (key, stored) = store.created
    assert [len(value) for _, value in parts] == [1024 * 1024, 1024 * 1024, 2_500_013 - 2 * 1024 * 1024]
    assert key.startswith("log/")
    assert len(stored) < 300
    (commit,) = await log_over(store).read_on()
    assert (commit.id, commit.events) == (stamp.id, ({"text": text},))
    assert store.largest_reply < 4 * 1024 * 1024


async def test_a_blob_whose_commit_lost_its_place_is_removed() -> None:
    """Nothing remains that erasing the subject would not find."""
    store = WatchedStore()
    log, other = log_over(store), log_over(store)
    await write(other, 1)
    with pytest.raises(Conflict):
        await log.append([Said("long " * 20_000)], epoch=1, driver="a")
    blob = store.created[-2][0]
    assert await store.get(blob) is not None

    await log.read_on()

    assert await store.get(blob) is None


async def test_what_was_refused_for_good_does_not_come_back() -> None:
    """The caller was told so; it must not appear in the log later."""
    store = WatchedStore()
    log = log_over(store)
    store.failures = ["for good"]
    with pytest.raises(Invalid):
        await log.append([Said("too much")], epoch=1, driver="a")
    assert await log.read_on() == ()
    assert (await log.append([Said("little")], epoch=1, driver="a")).n == 1
