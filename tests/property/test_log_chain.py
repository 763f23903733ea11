"""Laws of the log, over any interleaving of writers and any failure of the store.

The writers are coroutines stepped by hand: between any two store calls Hypothesis chooses who goes on, and
what becomes of each call. So a failing case is small and repeats exactly.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perdure.errors import Conflict, NotFound, Transient
from perdure.log.log import Log, LogLimits, Snapshot
from perdure.log.subject import subject_id
from perdure.sidecar.memory.store import MemoryStateStore
from perdure.sidecar.ports import Item

SUBJECT = subject_id("tests", "", "agent", "session")
SMALL = LogLimits(
    segment_commits=3,
    segment_bytes=2000,
    blob_bytes=700,
    blob_part_bytes=500,
    snapshot_bytes=400,
    first_page_commits=1,
    page_commits=2,
)
FATES = ("done", "done", "done", "refused", "lost", "late")


class StillClock:
    def now(self) -> datetime:
        return datetime(2026, 1, 1, tzinfo=UTC)

    def monotonic(self) -> float:
        return 0.0

    async def sleep(self, seconds: float) -> None:
        raise AssertionError("the log waits for nothing")


class CountingIds:
    def __init__(self) -> None:
        self.given = 0

    def new(self) -> str:
        self.given += 1
        return f"{self.given:032x}"


class FatefulStore:
    """A memory store whose calls meet the fates drawn for them; once these are used up, all is well."""

    name = "fateful"

    def __init__(self, fates: Sequence[str]) -> None:
        self.inside = MemoryStateStore()
        self.fates = list(fates)
        self.late: list[Callable[[], Coroutine[Any, Any, None]]] = []
        self.largest_reply = 0

    async def get(self, key: str) -> Item | None:
        await self._read()
        return await self.inside.get(key)

    async def get_many(self, keys: Sequence[str]) -> Mapping[str, Item]:
        # Not one moment: each key is read by itself, and others write in between.
        await self._read()
        found = {key: await self.inside.get(key) for key in reversed(keys)}
        return {key: item for key, item in found.items() if item is not None}

    async def create(self, key: str, value: bytes) -> None:
        await self._write(lambda: self.inside.create(key, value))

    async def put(self, key: str, value: bytes, *, etag: str | None = None) -> None:
        await self._write(lambda: self.inside.put(key, value, etag=etag))

    async def delete(self, key: str, *, etag: str | None = None) -> None:
        await self._write(lambda: self.inside.delete(key, etag=etag))

    async def check(self) -> None:
        await self.inside.check()

    async def _read(self) -> None:
        if self.fates and self.fates.pop() == "refused":
            raise Transient("store_away", "try again")

    async def _write(self, write: Callable[[], Coroutine[Any, Any, None]]) -> None:
        fate = self.fates.pop() if self.fates else "done"
        if fate in ("refused", "late"):
            if fate == "late":
                self.late.append(write)
            raise Transient("store_away", "try again")
        await write()
        if fate == "lost":
            raise Transient("store_away", "try again")


@dataclass
class Writer:
    """Adds its words to the log, each once, as the run layer does: decide from the fold, append, fold."""

    store: FatefulStore
    ids: CountingIds
    words: list[str]
    acknowledged: dict[str, int] = field(default_factory=dict)
    fold: list[str] = field(default_factory=list)
    log: Log = field(init=False)

    async def run(self, crash: Callable[[], bool], retire: bool) -> None:
        await self.start()
        while True:
            word = next((word for word in self.words if word not in self.fold), None)
            if word is None:
                return
            await self.step(word)
            if crash():
                await self.start()
            if self.log.segment_due:
                await self.until_answered(self.close)
                if retire:
                    await self.until_answered(lambda: self.log.retire(self.log.n - 1))

    async def start(self) -> None:
        self.log = Log(self.store, SUBJECT, clock=StillClock(), ids=self.ids, limits=SMALL)
        loaded = await self.until_answered(lambda: self.log.load(snapshot_version="1"))
        self.fold = json.loads(loaded.snapshot.data) if loaded.snapshot else []
        self.take(loaded.commits)

    async def step(self, word: str) -> None:
        try:
            commit = await self.log.append([{"word": word}], epoch=1, driver="d")
        except (Conflict, Transient):
            self.take(await self.until_answered(self.log.read_on))
        else:
            assert word not in self.fold
            self.take([commit])
            self.acknowledged[word] = commit.n

    async def close(self) -> None:
        await self.log.close_segment(Snapshot(self.log.n, "1", json.dumps(self.fold).encode()))

    def take(self, commits: Sequence[Any]) -> None:
        for commit in commits:
            self.fold += [event["word"] for event in commit.events]

    async def until_answered(self, call: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
        while True:
            try:
                return await call()
            except Transient:
                continue


def interleave(coroutines: Sequence[Coroutine[Any, Any, Any]], choose: Callable[[int], int]) -> None:
    """Step the coroutines, one store call at a time, until all have ended."""
    running = list(coroutines)
    while running:
        chosen = running[choose(len(running))]
        try:
            chosen.send(None)
        except StopIteration:
            running.remove(chosen)


def now(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """The result of a coroutine that has the store to itself."""
    while True:
        try:
            coroutine.send(None)
        except StopIteration as stop:
            return stop.value


async def all_of(log: Log, start: int = 1, stop: int | None = None) -> list[Any]:
    return [commit async for commit in log.history(start, stop)]


def fresh(store: FatefulStore) -> Log:
    return Log(store, SUBJECT, clock=StillClock(), ids=CountingIds(), limits=SMALL)


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_two_writers_on_a_failing_store_leave_one_gapless_chain_with_every_word_once(data: st.DataObject) -> None:
    """Whatever is lost, late or refused, each acknowledged append is there once and none is there twice."""
    store = FatefulStore(data.draw(st.lists(st.sampled_from(FATES), max_size=40)))
    ids = CountingIds()
    sizes = st.lists(st.sampled_from([1, 50, 1600]), min_size=1, max_size=6)
    writers = [
        Writer(store, ids, [f"{name}{index}" * size for index, size in enumerate(data.draw(sizes))])
        for name in ("a", "b")
    ]
    choices = data.draw(st.lists(st.integers(0, 5), max_size=200))
    crashes = data.draw(st.lists(st.booleans(), max_size=6))
    retire = data.draw(st.booleans())

    def choose(count: int) -> int:
        choice = choices.pop() if choices else 0
        if choice >= 4 and store.late:
            with suppress(Conflict):
                now(store.late.pop(0)())
        return choice % count

    interleave([writer.run(lambda: bool(crashes and crashes.pop()), retire) for writer in writers], choose)

    store.fates.clear()
    history = now(all_of(fresh(store)))
    assert [commit.n for commit in history] == list(range(1, len(history) + 1))
    assert [commit.prev for commit in history] == ["", *(commit.id for commit in history[:-1])]
    written = [event["word"] for commit in history for event in commit.events]
    assert sorted(written) == sorted(word for writer in writers for word in writer.words)
    for writer in writers:
        for word, n in writer.acknowledged.items():
            assert written[n - 1] == word
        writer.take(now(writer.log.read_on()))
        assert writer.fold == written
        reader = Writer(store, ids, [])
        now(reader.start())
        assert reader.fold == written


@settings(max_examples=100, deadline=None)
@given(
    sizes=st.lists(st.sampled_from([1, 400, 900]), max_size=14),
    closes=st.sets(st.integers(1, 14)),
    retired=st.integers(0, 15),
    version=st.sampled_from(["1", "2"]),
    bounds=st.tuples(st.integers(1, 15), st.integers(1, 16)),
)
def test_load_and_history_say_what_was_appended(
    sizes: list[int], closes: set[int], retired: int, version: str, bounds: tuple[int, int]
) -> None:
    """After any prefix, with any segments, snapshots, marks and blobs, a load is the fold of everything appended."""
    store = FatefulStore([])
    log = fresh(store)
    words = [f"{n}," * size for n, size in enumerate(sizes, 1)]
    for n, word in enumerate(words, 1):
        appended = now(log.append([{"word": word}], epoch=n, driver="d"))
        assert (appended.n, appended.epoch, appended.events) == (n, n, ({"word": word},))
        if n in closes:
            now(log.close_segment(Snapshot(n, "1", json.dumps(words[:n]).encode())))
    now(log.retire(retired))

    loaded = now(fresh(store).load(snapshot_version=version))
    fold = json.loads(loaded.snapshot.data) if loaded.snapshot else []
    assert fold + [commit.events[0]["word"] for commit in loaded.commits] == words
    assert version == "1" or loaded.snapshot is None
    assert [commit.events[0]["word"] for commit in now(fresh(store).read_on())] == words
    start, stop = bounds
    part = now(all_of(fresh(store), start, stop))
    assert [commit.events[0]["word"] for commit in part] == words[start - 1 : stop - 1]


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_erasing_beside_a_writer_leaves_only_marks(data: st.DataObject) -> None:
    """Cut anywhere and done again, beside a writer who does not know, erasing leaves nothing but marks and the head."""
    store = FatefulStore([])
    ids = CountingIds()
    sizes = st.lists(st.sampled_from([1, 50, 1600]), max_size=8)
    before, beside = data.draw(sizes), data.draw(sizes)
    now(
        Writer(store, ids, [f"a{n}" * size for n, size in enumerate(before)]).run(
            lambda: False, data.draw(st.booleans())
        )
    )
    writer = Writer(store, ids, [f"b{n}" * size for n, size in enumerate(beside)])
    store.fates = data.draw(st.lists(st.sampled_from(["done", "done", "refused", "lost"]), max_size=30))
    choices = data.draw(st.lists(st.integers(0, 1), max_size=200))

    async def write() -> None:
        with suppress(NotFound):
            await writer.run(lambda: False, False)

    async def erase() -> None:
        await writer.until_answered(lambda: fresh(store).erase())

    interleave([write(), erase()], lambda count: choices.pop() % count if choices else 0)

    store.fates.clear()
    now(fresh(store).erase())
    left = {key: item.value for key, item in store.inside._items.items() if not key.startswith("head/")}
    assert set(left.values()) == {b"0"}
    for look in (fresh(store).load(snapshot_version="1"), fresh(store).read_on(), all_of(fresh(store))):
        with pytest.raises(NotFound) as caught:
            now(look)
        assert caught.value.code == "subject_erased"
