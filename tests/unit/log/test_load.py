"""Loading, reading on and history; what a broken log says."""

from __future__ import annotations

import orjson
import pytest

from perdure.errors import Broken, NotFound
from perdure.log.keys import MARK, Keys
from perdure.log.log import Log, LogLimits, Snapshot
from unit.log.stores import SUBJECT, WatchedStore, log_over, write

KEYS = Keys(SUBJECT)
SMALL = LogLimits(segment_commits=4)


async def loaded_reads(store: WatchedStore) -> int:
    before = store.reads
    await log_over(store).load(snapshot_version="1")
    return store.reads - before


async def write_with_snapshots(log: Log, count: int) -> None:
    for _ in range(count):
        await log.append([{"text": "x" * 1000}], epoch=1, driver="d")
        if log.segment_due:
            await log.close_segment(Snapshot(log.n, "1", b"fold"))


async def test_an_empty_log_is_found_empty_in_one_read() -> None:
    """A new session costs one round trip."""
    store = WatchedStore()
    log = log_over(store)
    loaded = await log.load(snapshot_version="1")
    assert (loaded.snapshot, loaded.commits, log.n, log.last_id) == (None, (), 0, "")
    assert store.reads == 1
    assert log.next_key == KEYS.commit(1)


async def test_a_cold_load_costs_the_same_however_long_the_log_is() -> None:
    """Head, newest segment, tail."""
    store = WatchedStore()
    log = log_over(store)
    await write_with_snapshots(log, 70)
    early = await loaded_reads(store)
    await write_with_snapshots(log, 1280)
    assert await loaded_reads(store) == early <= 5


async def test_each_byte_is_written_at_most_twice() -> None:
    """Once in its commit, once (compressed) in its segment; no append writes more than the first."""
    store = WatchedStore()
    log = log_over(store)
    await write_with_snapshots(log, 640)
    events = 640 * 1000
    assert store.written < events * 2
    assert store.written < events + 640 * 200 + 10 * 4096


async def test_a_snapshot_of_another_version_is_not_used() -> None:
    """A new fold starts from the first commit, through all segments and marks."""
    store = WatchedStore()
    log = log_over(store, SMALL)
    for n in range(1, 11):
        await log.append([{"n": n}], epoch=1, driver="d")
        if log.segment_due:
            await log.close_segment(Snapshot(n, "1", b"fold"))
    await log.retire(7)

    other = log_over(store, SMALL)
    loaded = await other.load(snapshot_version="2")

    assert loaded.snapshot is None
    assert [commit.events[0]["n"] for commit in loaded.commits] == list(range(1, 11))
    assert (other.n, other.last_id) == (log.n, log.last_id)
    same = await log_over(store, SMALL).load(snapshot_version="1")
    assert same.snapshot == Snapshot(8, "1", b"fold")
    assert [commit.n for commit in same.commits] == [9, 10]


async def test_a_snapshot_too_large_is_dropped() -> None:
    """The segment is written without it."""
    store = WatchedStore()
    log = log_over(store, LogLimits(segment_commits=2, snapshot_bytes=10))
    await write(log, 1)
    await log.append([], epoch=1, driver="d")
    await log.close_segment(Snapshot(2, "1", bytes(range(256))))
    loaded = await log_over(store).load(snapshot_version="1")
    assert loaded.snapshot is None
    assert len(loaded.commits) == 2


async def test_a_segment_closed_by_another_replica_is_taken_over() -> None:
    """Segments are written once; who comes second goes on behind the first one's."""
    store = WatchedStore()
    one, other = log_over(store, SMALL), log_over(store, SMALL)
    for _ in range(6):
        await one.append([{}], epoch=1, driver="d")
    await other.read_on()
    await one.close_segment(None)
    await other.close_segment(None)
    await other.append([{}], epoch=1, driver="d")
    await other.append([{}], epoch=1, driver="d")
    assert other.segment_due
    await other.close_segment(None)
    assert [key for key, _ in store.created if key.startswith("seg/")] == [
        KEYS.segment(1),
        KEYS.segment(1),
        KEYS.segment(5),
    ]
    assert [commit.n async for commit in log_over(store).history()] == list(range(1, 9))


async def test_closing_after_shedding_reads_what_it_needs() -> None:
    """Memory given back is read again; the segment is the same."""
    store = WatchedStore()
    log = log_over(store, SMALL)
    for n in range(4):
        await log.append([{"n": n}], epoch=1, driver="d")
    log.shed()
    await log.close_segment(None)
    await log.retire(5)
    assert [commit.events[0]["n"] async for commit in log_over(store).history()] == [0, 1, 2, 3]


async def test_no_reply_exceeds_the_limit_of_a_message() -> None:
    """Commits as large as they can be are asked for few at a time."""
    store = WatchedStore()
    await write(log_over(store), 200, size=60_000)
    assert len((await log_over(store).load(snapshot_version="1")).commits) == 200
    await log_over(store).retire(150)
    assert len([commit async for commit in log_over(store).history(2)]) == 199
    assert len(await log_over(store).read_on()) == 200
    assert store.largest_reply < 4 * 1024 * 1024


async def test_history_does_not_move_the_position() -> None:
    """Any part of the past, `stop` not included."""
    store = WatchedStore()
    log = log_over(store, SMALL)
    await write(log, 10)
    reader = log_over(store, SMALL)
    assert [commit.n async for commit in reader.history(3, 9)] == [3, 4, 5, 6, 7, 8]
    assert [commit.n async for commit in reader.history(9)] == [9, 10]
    assert [commit.n async for commit in reader.history(4, 4)] == []
    assert [commit.n async for commit in reader.history(11)] == []
    assert reader.n == 0


async def broken(log: Log) -> Broken:
    with pytest.raises(Broken) as caught:
        await log.load(snapshot_version="1")
    return caught.value


async def test_a_missing_commit_is_a_gap() -> None:
    """A store that lost a write is reported, with subject and number."""
    store = WatchedStore()
    await write(log_over(store), 4)
    await store.delete(KEYS.commit(2))
    error = await broken(log_over(store))
    assert (error.code, error.details) == ("log_gap", {"subject": SUBJECT, "n": 2})


async def test_a_commit_that_follows_another_past_is_a_gap() -> None:
    """After a failover that lost the tail, a writer that still knew it must not be read as if nothing happened."""
    store = WatchedStore()
    one, other = log_over(store), log_over(store)
    await write(one, 2)
    await store.delete(KEYS.commit(2))
    await other.read_on()
    await other.append([{"text": "another past"}], epoch=1, driver="d")
    await one.append([{"text": "the lost past"}], epoch=1, driver="d")
    with pytest.raises(Broken) as caught:
        await other.read_on()
    assert (caught.value.code, caught.value.details["n"]) == ("log_gap", 3)
    assert other.n == 2


async def test_a_tail_lost_behind_a_snapshot_is_a_gap() -> None:
    """A fold knows more than the log has."""
    store = WatchedStore()
    log = log_over(store, LogLimits(segment_commits=2))
    for _ in range(3):
        await log.append([{}], epoch=1, driver="d")
    await log.close_segment(Snapshot(3, "1", b""))
    await store.delete(KEYS.commit(3))
    error = await broken(log_over(store))
    assert (error.code, error.details["n"]) == ("log_gap", 3)


async def test_a_mark_that_no_segment_covers_is_a_gap() -> None:
    """Marks say that a segment has the content; when none has, it is lost."""
    store = WatchedStore()
    await write(log_over(store), 3)
    await store.put(KEYS.commit(2), MARK)
    assert (await broken(log_over(store))).code == "log_gap"


async def test_a_commit_of_an_unknown_version_is_not_guessed() -> None:
    """It names the version; nothing of it is read."""
    store = WatchedStore()
    await write(log_over(store), 1)
    item = await store.get(KEYS.commit(1))
    assert item is not None
    await store.put(KEYS.commit(1), orjson.dumps({**orjson.loads(item.value), "v": 2}))
    error = await broken(log_over(store))
    assert (error.code, error.details["version"]) == ("commit_version", 2)


@pytest.mark.parametrize(
    ("key", "code"),
    [(KEYS.commit(1), "commit_unreadable"), (KEYS.segment(1), "segment_unreadable"), (KEYS.head, "head_unreadable")],
)
async def test_what_is_not_ours_is_reported(key: str, code: str) -> None:
    """Foreign bytes at a key of the log are an error with a name, not a crash."""
    store = WatchedStore()
    log = log_over(store, LogLimits(segment_commits=1))
    await write(log, 1)
    if key == KEYS.commit(1):
        await store.put(KEYS.head, b'{"f":0,"l":0,"r":0,"x":0}')
    for foreign in (b"[]", b"{}", b'{"v":1}', b"\xff"):
        await store.put(key, foreign)
        assert (await broken(log_over(store))).code == code


async def test_a_missing_or_altered_blob_is_reported() -> None:
    """Its digest covers it."""
    store = WatchedStore()
    await write(log_over(store), 1, size=100_000)
    blob = store.created[0][0]
    await store.put(blob, b"other")
    assert (await broken(log_over(store))).code == "blob_missing"
    await store.delete(blob)
    assert (await broken(log_over(store))).code == "blob_missing"


async def test_an_erased_subject_says_so_to_everybody() -> None:
    """Loading, history, closing and retiring say it; a writer that does not know yet meets a conflict first."""
    store = WatchedStore()
    log = log_over(store, SMALL)
    await write(log, 10, size=100_000)
    await log_over(store).erase()
    await log_over(store).erase()

    assert {item.value for key, item in store._items.items() if key != KEYS.head} == {MARK}
    calls = [
        log_over(store).load(snapshot_version="1"),
        log_over(store).read_on(),
        log.read_on(),
        log.close_segment(None),
        log.retire(5),
        anext(log.history()),
    ]
    for call in calls:
        with pytest.raises(NotFound) as caught:
            await call
        assert caught.value.code == "subject_erased"


async def test_moving_the_hint_does_not_bring_an_erased_subject_back() -> None:
    """The hint is written only over what was read, so erasing between read and write wins."""

    class ErasedMeanwhile(WatchedStore):
        erase_now = False

        async def put(self, key: str, value: bytes, *, etag: str | None = None) -> None:
            if self.erase_now:
                self.erase_now = False
                await log_over(self).erase()
            await super().put(key, value, etag=etag)

    store = ErasedMeanwhile()
    log = log_over(store, SMALL)
    await write(log, 5)
    store.erase_now = True
    with pytest.raises(NotFound):
        await log.close_segment(None)
    with pytest.raises(NotFound):
        await log_over(store).load(snapshot_version="1")


async def test_a_subject_never_used_can_be_erased() -> None:
    """Its id is never used again, so a log must not begin there later."""
    store = WatchedStore()
    await log_over(store).erase()
    with pytest.raises(NotFound):
        await log_over(store).load(snapshot_version="1")


async def test_retiring_keeps_what_no_segment_has() -> None:
    """Only what is twice there goes, each commit once."""
    store = WatchedStore()
    log = log_over(store, SMALL)
    await write(log, 6)
    assert await log.retire(100) == 4
    assert await log.retire(100) == 0
    marks = [item.value == MARK for n in range(1, 7) if (item := await store.get(KEYS.commit(n)))]
    assert marks == [True] * 4 + [False] * 2
