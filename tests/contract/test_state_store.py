"""What every `StateStore` promises, whatever stands behind it."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from perdure.clock import SystemClock
from perdure.errors import Conflict, Invalid, NotFound, SidecarUnavailable
from perdure.observability.metrics import make_metrics
from perdure.observability.tracing import Tracer
from perdure.sidecar.dapr.sidecar import DaprSidecar
from perdure.sidecar.files import FolderStateStore
from perdure.sidecar.memory import MemoryStateStore
from perdure.sidecar.observed import ObservedStore
from perdure.sidecar.ports import StateStore
from perdure.testing.faults import FaultPlan, FaultyStateStore

LOCAL = ["memory", "files", "faulty", "observed"]
COMPONENTS = ["redis", "sqlite", "inmemory"]
on_dapr = [pytest.param(name, marks=pytest.mark.sidecar) for name in COMPONENTS]


@pytest.fixture(params=[*LOCAL, *on_dapr])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[StateStore]:
    match request.param:
        case "memory":
            yield MemoryStateStore()
        case "faulty":
            yield FaultyStateStore(MemoryStateStore(), FaultPlan())
        case "observed":
            yield ObservedStore(MemoryStateStore(), metrics=make_metrics(), tracer=Tracer(), clock=SystemClock())
        case "files":
            folder = FolderStateStore(tmp_path / "store")
            yield folder
            await folder.close()
        case component:
            platform = request.getfixturevalue("platform")
            async with DaprSidecar(platform.address, stores=[component]) as doors:
                yield doors.stores[component]


@pytest.fixture
def fresh() -> Callable[[], str]:
    """Keys that no other test uses: the stores of a sidecar are shared."""
    run = secrets.token_hex(6)
    return lambda: f"contract/{run}/{secrets.token_hex(4)}"


Fresh = Callable[[], str]


async def test_an_unknown_key_is_none(store: StateStore, fresh: Fresh) -> None:
    assert await store.get(fresh()) is None


@pytest.mark.parametrize("value", [b"", b"x", b"\x00\xff\n\r", b'{"a": 1}', b"null", b"12", b"z" * 70_000])
async def test_bytes_come_back_as_they_were_written(store: StateStore, fresh: Fresh, value: bytes) -> None:
    key = fresh()
    await store.create(key, value)
    found = await store.get(key)
    assert found is not None
    assert found.value == value
    assert found.etag


async def test_a_create_of_a_taken_key_conflicts_and_changes_nothing(store: StateStore, fresh: Fresh) -> None:
    key = fresh()
    await store.create(key, b"first")
    before = await store.get(key)
    with pytest.raises(Conflict) as caught:
        await store.create(key, b"second")
    assert caught.value.code == "key_taken"
    assert await store.get(key) == before


async def test_creating_the_identical_bytes_again_is_fine(store: StateStore, fresh: Fresh) -> None:
    key = fresh()
    await store.create(key, b"same")
    await store.create(key, b"same")
    found = await store.get(key)
    assert found is not None
    assert found.value == b"same"


async def test_a_put_with_the_current_etag_writes_and_changes_the_etag(store: StateStore, fresh: Fresh) -> None:
    key = fresh()
    await store.create(key, b"1")
    first = await store.get(key)
    assert first is not None
    await store.put(key, b"2", etag=first.etag)
    second = await store.get(key)
    assert second is not None
    assert second.value == b"2"
    assert second.etag != first.etag


async def test_a_put_with_a_stale_etag_conflicts(store: StateStore, fresh: Fresh) -> None:
    key = fresh()
    await store.create(key, b"1")
    first = await store.get(key)
    assert first is not None
    await store.put(key, b"2", etag=first.etag)
    with pytest.raises(Conflict) as caught:
        await store.put(key, b"3", etag=first.etag)
    assert caught.value.code == "etag_stale"
    found = await store.get(key)
    assert found is not None
    assert found.value == b"2"


async def test_a_put_with_an_etag_never_brings_a_deleted_key_back(store: StateStore, fresh: Fresh) -> None:
    key = fresh()
    await store.create(key, b"1")
    found = await store.get(key)
    assert found is not None
    await store.delete(key)
    with pytest.raises(Conflict) as caught:
        await store.put(key, b"2", etag=found.etag)
    assert caught.value.code == "etag_stale"
    assert await store.get(key) is None


async def test_a_put_without_etag_writes_whatever_is_there(store: StateStore, fresh: Fresh) -> None:
    key = fresh()
    await store.put(key, b"1")
    await store.put(key, b"2")
    found = await store.get(key)
    assert found is not None
    assert found.value == b"2"


async def test_delete_removes_and_tolerates_absence(store: StateStore, fresh: Fresh) -> None:
    key = fresh()
    await store.create(key, b"1")
    await store.delete(key)
    await store.delete(key)
    assert await store.get(key) is None


async def test_a_delete_with_a_stale_etag_conflicts_and_keeps_the_value(store: StateStore, fresh: Fresh) -> None:
    key = fresh()
    await store.create(key, b"1")
    first = await store.get(key)
    assert first is not None
    await store.put(key, b"2")
    with pytest.raises(Conflict) as caught:
        await store.delete(key, etag=first.etag)
    assert caught.value.code == "etag_stale"
    second = await store.get(key)
    assert second is not None
    await store.delete(key, etag=second.etag)
    assert await store.get(key) is None


async def test_get_many_returns_what_exists(store: StateStore, fresh: Fresh) -> None:
    keys = [fresh() for _ in range(150)]
    await asyncio.gather(*(store.create(key, key.encode()) for key in keys[::2]))
    found = await store.get_many([*keys, keys[0]])
    assert {key: item.value for key, item in found.items()} == {key: key.encode() for key in keys[::2]}
    assert await store.get_many([]) == {}


async def test_get_many_pages_what_exceeds_one_message(store: StateStore, fresh: Fresh) -> None:
    keys = [fresh() for _ in range(70)]
    for start in range(0, len(keys), 10):
        await asyncio.gather(*(store.create(key, key.encode() * 3000) for key in keys[start : start + 10]))
    found = await store.get_many(keys)
    assert sum(len(item.value) for item in found.values()) > 4 * 1024 * 1024
    assert all(found[key].value == key.encode() * 3000 for key in keys)


async def test_of_many_creators_one_wins_and_knows_it(store: StateStore, fresh: Fresh) -> None:
    key = fresh()

    async def attempt(number: int) -> bool:
        try:
            await store.create(key, f"creator {number}".encode())
        except Conflict:
            return False
        return True

    won = await asyncio.gather(*(attempt(number) for number in range(32)))
    assert sum(won) == 1
    found = await store.get(key)
    assert found is not None
    assert found.value == f"creator {won.index(True)}".encode()


async def test_of_many_writers_with_one_etag_one_wins(store: StateStore, fresh: Fresh) -> None:
    key = fresh()
    await store.create(key, b"0")
    first = await store.get(key)
    assert first is not None

    async def attempt(number: int) -> bool:
        try:
            await store.put(key, f"writer {number}".encode(), etag=first.etag)
        except Conflict:
            return False
        return True

    won = await asyncio.gather(*(attempt(number) for number in range(32)))
    assert sum(won) == 1
    found = await store.get(key)
    assert found is not None
    assert found.value == f"writer {won.index(True)}".encode()


async def test_a_counter_kept_by_compare_and_set_loses_nothing(store: StateStore, fresh: Fresh) -> None:
    key = fresh()
    await store.create(key, b"0")

    async def add() -> None:
        while True:
            found = await store.get(key)
            assert found is not None
            try:
                # The writer's name makes the bytes its own: equal bytes count as one's own write.
                count = int(found.value.split()[0]) + 1
                await store.put(key, f"{count} {secrets.token_hex(4)}".encode(), etag=found.etag)
            except Conflict:
                continue
            return

    await asyncio.gather(*(add() for _ in range(20)))
    found = await store.get(key)
    assert found is not None
    assert found.value.split()[0] == b"20"


async def test_check_returns_when_the_store_answers(store: StateStore) -> None:
    await store.check()


# --- the sidecar's own ways ------------------------------------------------------------------------


@pytest.mark.sidecar
async def test_a_missing_component_is_named_with_the_next_step(platform: Any) -> None:
    async with DaprSidecar(platform.address, stores=["nowhere"]) as doors:
        for call in (doors.stores["nowhere"].check(), doors.stores["nowhere"].create("k", b"v")):
            with pytest.raises(NotFound, match=r"'nowhere'.*components folder") as caught:
                await call
            assert caught.value.code == "component_unknown"


@pytest.mark.sidecar
@pytest.mark.parametrize("key", ["a||b"])
async def test_a_key_the_sidecar_refuses_is_told_at_once(platform: Any, key: str) -> None:
    async with DaprSidecar(platform.address, stores=["redis"]) as doors:
        with pytest.raises(Invalid):
            await doors.stores["redis"].create(key, b"v")
        with pytest.raises(Invalid):
            await doors.stores["redis"].create("too-large", b"v" * 5_000_000)


@pytest.mark.sidecar
async def test_a_killed_sidecar_is_told_in_bounded_time_and_found_again(platform: Any, fresh: Fresh) -> None:
    loop = asyncio.get_running_loop()
    async with DaprSidecar(platform.address, stores=["redis"], settle_s=1.0) as doors:
        store = doors.stores["redis"]
        key = fresh()
        await store.create(key, b"before")
        platform.kill_sidecar()
        try:
            began = loop.time()
            with pytest.raises(SidecarUnavailable):
                await store.get(key)
            with pytest.raises(SidecarUnavailable):
                await store.create(fresh(), b"during")
            assert loop.time() - began < 4.0
        finally:
            platform.start_sidecar()
        began = loop.time()
        await store.create(key + "-after", b"after")
        assert loop.time() - began < 1.0
        found = await store.get(key)
        assert found is not None
        assert found.value == b"before"


@pytest.mark.sidecar
async def test_a_create_under_way_while_the_sidecar_restarts_settles_by_itself(platform: Any, fresh: Fresh) -> None:
    async with DaprSidecar(platform.address, stores=["redis"], settle_s=15.0) as doors:
        store = doors.stores["redis"]
        await store.check()
        platform.kill_sidecar()
        key = fresh()
        creating = asyncio.create_task(store.create(key, b"patient"))
        await asyncio.to_thread(platform.start_sidecar)
        await creating
        found = await store.get(key)
        assert found is not None
        assert found.value == b"patient"


# --- files -----------------------------------------------------------------------------------------


async def test_what_a_folder_was_told_is_there_for_the_next_process(tmp_path: Path) -> None:
    first = FolderStateStore(tmp_path)
    await first.create("k", b"v")
    await first.close()
    second = FolderStateStore(tmp_path)
    found = await second.get("k")
    await second.close()
    assert found is not None
    assert found.value == b"v"


async def test_two_stores_over_one_folder_keep_compare_and_set_between_them(tmp_path: Path) -> None:
    stores = [FolderStateStore(tmp_path), FolderStateStore(tmp_path)]

    async def attempt(number: int) -> bool:
        try:
            await stores[number % 2].create("k", str(number).encode())
        except Conflict:
            return False
        return True

    won = await asyncio.gather(*(attempt(number) for number in range(16)))
    for store in stores:
        await store.close()
    assert sum(won) == 1
