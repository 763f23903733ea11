"""A service is kept up for as long as its HTTP side lives, whatever is late or missing."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable
from typing import Any

import pytest

from perdure import App, DurableAgent, Pipeline, Settings
from perdure.errors import Invalid, NotFound, PerdureError, SidecarUnavailable
from perdure.serving.lifespan import Keeper
from perdure.serving.service import Standing
from perdure.serving.wiring import Reach, memory_reach
from perdure.sidecar.memory import MemorySidecar, MemoryStateStore
from perdure.sidecar.ports import Item

STORES = ("conversationstore", "workflowstatestore", "agentstatestore", "registrystore")


class Away(MemoryStateStore):
    """A store that cannot be read."""

    def __init__(self, name: str, error: PerdureError) -> None:
        super().__init__(name)
        self.error = error

    async def get(self, key: str) -> Item | None:
        raise self.error


class Hanging(MemoryStateStore):
    """A store that never answers."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.asked = asyncio.Event()

    async def get(self, key: str) -> Item | None:
        self.asked.set()
        await asyncio.Event().wait()
        return None


def reached(conversation: MemoryStateStore) -> Reach:
    """Doors whose store of turns is `conversation`."""
    others = {name: MemoryStateStore(name) for name in STORES[1:]}
    return memory_reach(MemorySidecar("late", stores={STORES[0]: conversation, **others}))


def keeper(standing: Standing, reach: Callable[[], Reach], **declared: Any) -> Keeper:
    app = App(settings=Settings(), **(declared or {"agents": [DurableAgent("a", model="scripted:hi")]}))
    return Keeper(app.plan(), reach, standing)


@pytest.mark.parametrize("error", [SidecarUnavailable("away", "nobody answers"), NotFound("gone", "no such component")])
async def test_what_is_away_at_first_is_waited_for_and_told_once(error: PerdureError, caplog: Any) -> None:
    standing = Standing()
    attempts = [
        Away("conversationstore", error),
        Away("conversationstore", error),
        MemoryStateStore("conversationstore"),
    ]
    async with keeper(standing, lambda: reached(attempts.pop(0))).kept():
        assert standing.up
        assert standing.service is not None
        assert standing.reason == error.message
        assert attempts == []
    assert standing.service is None
    assert len([record for record in caplog.records if "service_not_up" in record.getMessage()]) == 1


async def test_a_wrong_declaration_is_no_matter_of_waiting() -> None:
    empty = Pipeline("empty")
    with pytest.raises(Invalid, match="empty"):
        async with keeper(Standing(), lambda: reached(MemoryStateStore()), pipelines=[empty]).kept():
            pass


async def test_a_service_that_is_still_being_built_does_not_hold_up_its_end(monkeypatch: Any) -> None:
    monkeypatch.setattr("perdure.serving.lifespan.START_WAIT_S", 0.05)
    standing, store = Standing(), Hanging("conversationstore")
    async with asyncio.timeout(5), keeper(standing, lambda: reached(store)).kept():
        await store.asked.wait()
        assert not standing.up
    assert not standing.up


async def test_sigterm_answers_who_waits_and_reaches_the_servers_own_handler() -> None:
    heard: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: heard.append(number))
    try:
        standing = Standing()
        async with keeper(standing, lambda: reached(MemoryStateStore("conversationstore"))).kept():
            service = standing.service
            assert service is not None
            signal.raise_signal(signal.SIGTERM)
            async with asyncio.timeout(5):
                await service.draining.wait()
        assert heard == [signal.SIGTERM]
        signal.raise_signal(signal.SIGTERM)
        assert len(heard) == 2
    finally:
        signal.signal(signal.SIGTERM, before)


class Defective(Hanging):
    """A store behind which there is a defect, once `broken` is set."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.broken = asyncio.Event()

    async def get(self, key: str) -> Item | None:
        await self.broken.wait()
        raise ZeroDivisionError("a defect")


async def _until(ended: asyncio.Event, store: Defective, kept: Keeper) -> None:
    async with asyncio.timeout(5), kept.kept():
        store.broken.set()
        await ended.wait()


async def test_a_defect_ends_the_process_instead_of_answering_503_for_ever(monkeypatch: Any) -> None:
    monkeypatch.setattr("perdure.serving.lifespan.START_WAIT_S", 0.05)
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    before = signal.signal(signal.SIGTERM, lambda number, frame: loop.call_soon_threadsafe(ended.set))
    standing, store = Standing(), Defective("conversationstore")
    try:
        with pytest.raises(ZeroDivisionError):
            await _until(ended, store, keeper(standing, lambda: reached(store)))
        assert "a defect" in standing.reason
    finally:
        signal.signal(signal.SIGTERM, before)
