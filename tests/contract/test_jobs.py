"""What every `Jobs` promises."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator
from typing import Any

import orjson
import pytest

from perdure.errors import Invalid, NotFound
from perdure.sidecar.dapr.channel import SidecarChannel
from perdure.sidecar.dapr.jobs import DaprJobs
from perdure.sidecar.memory import MemoryJobs
from perdure.sidecar.ports import Jobs
from perdure.testing.clock import FakeClock
from perdure.types import JsonObject


@pytest.fixture(params=["memory", pytest.param("dapr", marks=pytest.mark.sidecar)])
async def jobs(request: pytest.FixtureRequest, listener: Any) -> AsyncIterator[Jobs]:
    if request.param == "memory":
        async with MemoryJobs() as memory:
            yield memory
        return
    platform, app_id = request.getfixturevalue("platform"), f"app-{secrets.token_hex(4)}"
    async with listener.listening():
        address = await asyncio.to_thread(platform.start_app_sidecar, app_id, listener.port)
        channel = SidecarChannel(address)
        dapr = DaprJobs(channel)

        async def tick(body: bytes) -> tuple[int, Any]:
            await dapr.deliver("tick", orjson.loads(body) if body else {})
            return 200, {}

        listener.answers["/job/tick"] = tick
        try:
            yield dapr
            await dapr.cancel("tick")
        finally:
            await channel.close()
            await asyncio.to_thread(platform.kill_app_sidecar, app_id)


class Ticks:
    def __init__(self) -> None:
        self.got: asyncio.Queue[JsonObject] = asyncio.Queue()

    async def __call__(self, data: JsonObject) -> None:
        self.got.put_nowait(data)

    async def next(self) -> JsonObject:
        async with asyncio.timeout(20):
            return await self.got.get()


async def test_a_job_ticks_again_and_again_with_its_data(jobs: Jobs) -> None:
    ticks = Ticks()
    jobs.on("tick", ticks)
    await jobs.schedule("tick", "@every 1s", {"sweep": True})
    assert [await ticks.next(), await ticks.next()] == [{"sweep": True}] * 2


async def test_scheduling_again_replaces(jobs: Jobs) -> None:
    ticks = Ticks()
    jobs.on("tick", ticks)
    await jobs.schedule("tick", "@every 1h", {"old": True})
    await jobs.schedule("tick", "@every 1s")
    assert await ticks.next() == {}


async def test_cancelling_an_unknown_job_is_fine(jobs: Jobs) -> None:
    await jobs.cancel("tick")
    await jobs.cancel("tick")


@pytest.mark.parametrize("every", ["30s", "@every", "@every 0s", "@every 3 weeks", "* * * * *"])
async def test_a_schedule_that_is_not_understood_is_refused(every: str) -> None:
    with pytest.raises(Invalid, match="@every 30s"):
        await MemoryJobs().schedule("tick", every)


async def test_a_tick_without_handler_is_not_found(jobs: Jobs) -> None:
    with pytest.raises(NotFound, match="nobody"):
        await jobs.deliver("nobody", {})


async def test_in_memory_a_failing_tick_does_not_end_the_schedule_and_a_cancelled_job_is_silent() -> None:
    clock, count = FakeClock(), 0

    async def failing(_: JsonObject) -> None:
        nonlocal count
        count += 1
        raise RuntimeError("no")

    async with MemoryJobs(clock=clock) as jobs:
        jobs.on("tick", failing)
        await jobs.schedule("tick", "@every 1m30s")
        await clock.advance(271)
        assert count == 3
        await jobs.cancel("tick")
        await clock.advance(600)
        assert count == 3
