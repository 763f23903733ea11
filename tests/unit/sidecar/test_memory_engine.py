"""The in-memory engine keeps time by the clock it was given, and its hosts outlive the process in a store."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

from perdure.errors import Transient
from perdure.sidecar.memory import MemoryEngine, MemoryStateStore
from perdure.sidecar.ports import Again, Drive, HostStatus, HostStep, Pause
from perdure.testing.clock import FakeClock
from perdure.types import JsonObject


def waiting_a_day(input: JsonObject) -> Generator[HostStep, Any, JsonObject]:
    woken = yield Pause(86_400.0)
    yield Drive({"woken": woken})
    return {}


async def test_a_pause_of_a_day_ends_when_the_clock_says_so() -> None:
    clock, seen = FakeClock(), []

    async def drive(input: JsonObject) -> JsonObject:
        seen.append((input, clock.monotonic()))
        return {}

    engine = MemoryEngine(clock=clock)
    async with engine.serve(waiting_a_day, drive):
        await engine.start("host", {})
        await clock.advance(86_399)
        assert seen == []
        await clock.advance(1)
        assert seen == [({"woken": False}, 86_400.0)]
        assert await engine.status("host") is HostStatus.DONE


async def test_a_host_started_before_serving_waits_for_it() -> None:
    clock, seen = FakeClock(), []

    async def drive(input: JsonObject) -> JsonObject:
        seen.append(input)
        return {}

    engine = MemoryEngine(clock=clock)
    await engine.start("host", {})
    assert await engine.status("host") is HostStatus.RUNNING
    async with engine.serve(waiting_a_day, drive):
        await engine.wake("host")
        await clock.settle()
    assert seen == [{"woken": True}]


async def test_a_drive_that_keeps_failing_for_passing_reasons_is_repeated_for_ever_with_pauses() -> None:
    clock, tries = FakeClock(), 0

    async def drive(input: JsonObject) -> JsonObject:
        nonlocal tries
        tries += 1
        raise Transient("away", "the store is away")

    def body(input: JsonObject) -> Generator[HostStep, Any, JsonObject]:
        return (yield Drive(input))

    engine = MemoryEngine(clock=clock)
    async with engine.serve(body, drive):
        await engine.start("host", {})
        await clock.advance(60)
        assert 10 < tries < 30
        assert await engine.status("host") is HostStatus.RUNNING


async def test_after_a_restart_a_host_goes_on_from_its_newest_input_and_finished_ones_stay_finished() -> None:
    clock, store, seen = FakeClock(), MemoryStateStore(), []

    async def drive(input: JsonObject) -> JsonObject:
        seen.append(input)
        return {}

    def body(input: JsonObject) -> Generator[HostStep, Any, JsonObject]:
        yield Drive(input)
        if input["round"] == 0:
            yield Again({"round": 1})
        if input.get("short"):
            return {}
        yield Pause(None)
        return {}

    first = MemoryEngine(clock=clock, store=store)
    async with first.serve(body, drive):
        await first.start("long", {"round": 0})
        await first.start("short", {"round": 2, "short": True})
        await clock.settle()
    second = MemoryEngine(clock=clock, store=store)
    assert await second.status("short") is HostStatus.DONE
    seen.clear()
    async with second.serve(body, drive):
        await second.start("short", {"round": 2, "short": True})
        await clock.settle()
        assert seen == [{"round": 1}]
        assert await second.status("long") is HostStatus.RUNNING
