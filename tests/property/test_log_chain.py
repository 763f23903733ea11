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
from random import Random
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
CHANCES = st.builds(Random, st.integers(0, 2**32))
"""Seeded: a failing case repeats exactly, and schedules are long enough to be interesting."""


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
    """A memory store that refuses calls, loses answers or writes late, while `trouble` is above 0."""

    name = "fateful"

    def __init__(self, chance: Random | None = None, trouble: float = 0.0) -> None:
        self.inside = MemoryStateStore()
        self.chance = chance or Random(0)
        self.trouble = trouble
        self.late: list[Callable[[], Coroutine[Any, Any, None]]] = []

    async def get(self, key: str) -> Item | None:
        await self._read()
        return await self.inside.get(key)

    async def get_many(self, keys: Sequence[str]) -> Mapping[str, Item]:
        # Not one moment: each key is read by itself, and others write in between.
        await self._read()
        found = {key: await self.inside.get(key) for key in keys}
        return {key: item for key, item in found.items() if item is not None}

    async def create(self, key: str, value: bytes) -> None:
        await self._write(key, lambda: self.inside.create(key, value))

    async def put(self, key: str, value: bytes, *, etag: str | None = None) -> None:
        await self._write(key, lambda: self.inside.put(key, value, etag=etag))

    async def delete(self, key: str, *, etag: str | None = None) -> None:
        await self._write(key, lambda: self.inside.delete(key, etag=etag))

    async def check(self) -> None:
        await self.inside.check()

    async def _read(self) -> None:
        if self.chance.random() < self.trouble:
            raise Transient("store_away", "try again")

    async def _write(self, key: str, write: Callable[[], Coroutine[Any, Any, None]]) -> None:
        if self.chance.random() >= self.trouble:
            return await write()
        fate = self.chance.choice(("refused", "lost", "late"))
        # Nothing can be promised for a blob that arrives after its writer has given it up.
        if fate == "late" and "blob/" not in key:
            self.late.append(write)
        elif fate == "lost":
            await write()
        raise Transient("store_away", "try again")

    def arrive(self) -> None:
        """Let one late write happen now."""
        with suppress(Conflict):
            now(self.late.pop(self.chance.randrange(len(self.late)))())


@dataclass
class Writer:
    """Adds its words to the log, each once, as the run layer does: decide from the fold, append, fold."""

    store: FatefulStore
    ids: CountingIds
    words: list[str]
    chance: Random
    retires: float = 0.3
    crashes: float = 0.1
    acknowledged: dict[str, int] = field(default_factory=dict)
    fold: list[str] = field(default_factory=list)
    log: Log = field(init=False)

    async def run(self) -> None:
        await self.start()
        while True:
            word = next((word for word in self.words if word not in self.fold), None)
            if word is None:
                return
            await self.step(word)
            if self.chance.random() < self.crashes:
                await self.start()
            if self.log.segment_due or self.chance.random() < 0.2:
                await self.until_answered(self.close)
            if self.chance.random() < self.retires:
                await self.until_answered(lambda: self.log.retire(self.log.n - self.chance.randrange(3)))

    async def start(self) -> None:
        self.log = Log(self.store, SUBJECT, clock=StillClock(), ids=self.ids, limits=SMALL)
        loaded = await self.until_answered(lambda: self.log.load(snapshot_version="1"))
        self.fold = json.loads(loaded.snapshot.data) if loaded.snapshot else []
        self.take(loaded.commits)

    async def step(self, word: str) -> None:
        try:
            stamp = await self.log.append([{"word": word}], epoch=1, driver="d")
        except (Conflict, Transient):
            self.take(await self.until_answered(self.log.read_on))
        else:
            assert word not in self.fold
            self.fold.append(word)
            self.acknowledged[word] = stamp.n

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


def interleave(store: FatefulStore, coroutines: Sequence[Coroutine[Any, Any, Any]]) -> None:
    """Step the coroutines, one store call at a time, until all have ended."""
    running = list(coroutines)
    while running:
        chosen = store.chance.choice(running)
        # Sometimes one gets far ahead of the others, sometimes they go step by step.
        for _ in range(store.chance.choice((1, 1, 2, 10, 100))):
            if store.late and store.chance.random() < 0.1:
                store.arrive()
            try:
                chosen.send(None)
            except StopIteration:
                running.remove(chosen)
                break


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


def words(name: str, chance: Random) -> list[str]:
    return [f"{name}{index}," * chance.choice((1, 50, 500)) for index in range(chance.randrange(12))]


@settings(max_examples=150, deadline=None)
@given(chance=CHANCES, trouble=st.sampled_from([0.0, 0.05, 0.3]), retires=st.sampled_from([0.0, 0.3]))
def test_writers_on_a_failing_store_leave_one_gapless_chain_with_every_word_once(
    chance: Random, trouble: float, retires: float
) -> None:
    """Whatever is lost, late or refused, each acknowledged append is there once and none is there twice."""
    store = FatefulStore(chance, trouble)
    ids = CountingIds()
    writers = [Writer(store, ids, words(name, chance), chance, retires) for name in ("a", "b", "c")]

    interleave(store, [writer.run() for writer in writers])

    store.trouble = 0.0
    while store.late:
        store.arrive()
    history = now(all_of(fresh(store)))
    assert [commit.n for commit in history] == list(range(1, len(history) + 1))
    assert [commit.prev for commit in history] == ["", *(commit.id for commit in history)][: len(history)]
    written = [event["word"] for commit in history for event in commit.events]
    assert sorted(written) == sorted(word for writer in writers for word in writer.words)
    for writer in writers:
        for word, n in writer.acknowledged.items():
            assert written[n - 1] == word
        writer.take(now(writer.log.read_on()))
        assert writer.fold == written
        reader = Writer(store, ids, [], chance)
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
    store = FatefulStore()
    log = fresh(store)
    said = [f"{n}," * size for n, size in enumerate(sizes, 1)]
    for n, word in enumerate(said, 1):
        appended = now(log.append([{"word": word}], epoch=n, driver="d"))
        assert (appended.n, appended.epoch, appended.driver) == (n, n, "d")
        if n in closes:
            now(log.close_segment(Snapshot(n, "1", json.dumps(said[:n]).encode())))
    now(log.retire(retired))

    loaded = now(fresh(store).load(snapshot_version=version))
    fold = json.loads(loaded.snapshot.data) if loaded.snapshot else []
    assert fold + [commit.events[0]["word"] for commit in loaded.commits] == said
    assert version == "1" or loaded.snapshot is None
    assert [commit.events[0]["word"] for commit in now(fresh(store).read_on())] == said
    start, stop = bounds
    part = now(all_of(fresh(store), start, stop))
    assert [commit.events[0]["word"] for commit in part] == said[start - 1 : stop - 1]


@settings(max_examples=150, deadline=None)
@given(chance=CHANCES, trouble=st.sampled_from([0.0, 0.1, 0.3]))
def test_erasing_beside_a_writer_leaves_only_marks(chance: Random, trouble: float) -> None:
    """Cut anywhere and done again, beside a writer who does not know, erasing leaves nothing but marks and the head."""
    store = FatefulStore(chance, 0.0)
    ids = CountingIds()
    now(Writer(store, ids, words("a", chance), chance).run())
    # A writer that crashes between a blob and its commit leaves the blob behind, so this one does not crash.
    writer = Writer(store, ids, words("b", chance), chance, crashes=0.0)
    store.trouble = trouble

    async def write() -> None:
        with suppress(NotFound):
            await writer.run()

    async def erase() -> None:
        await writer.until_answered(lambda: fresh(store).erase())

    interleave(store, [write(), erase()])

    store.trouble = 0.0
    while store.late:
        store.arrive()
    left = {key: item.value for key, item in store.inside._items.items() if not key.startswith("head/")}
    assert set(left.values()) == {b"0"}
    for look in (fresh(store).load(snapshot_version="1"), fresh(store).read_on(), all_of(fresh(store))):
        with pytest.raises(NotFound) as caught:
            now(look)
        assert caught.value.code == "subject_erased"
