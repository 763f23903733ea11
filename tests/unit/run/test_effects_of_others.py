"""What an adopter may believe of an effect that the owner before it had begun, when that owner is not dead."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import replace

import pytest

from perdure.clock import SystemClock, SystemIds
from perdure.errors import SidecarUnavailable
from perdure.observability.metrics import make_metrics
from perdure.run.event import Event
from perdure.run.kind import Action, Doing
from perdure.run.runner import Place, RunLimits, Runner
from perdure.sidecar.memory.engine import MemoryEngine
from perdure.sidecar.memory.jobs import MemoryJobs
from perdure.sidecar.memory.store import MemoryStateStore
from perdure.sidecar.ports import HostStatus, Item
from perdure.types import JsonObject, Slot
from toy import Toy, World
from toy_stage import ask

LIMITS = RunLimits(host_after_s=60, start_by_s=0.05, shutdown_s=0.2, poll_s=0.02, beat_s=0.04, stale_s=0.2)


class Losable:
    """A store that one replica can lose while the others keep it."""

    def __init__(self, store: MemoryStateStore) -> None:
        self.name = store.name
        self.lost = False
        self._store = store

    def _reached(self) -> MemoryStateStore:
        if self.lost:
            raise SidecarUnavailable("sidecar_unavailable", "nobody answers")
        return self._store

    async def get(self, key: str) -> Item | None:
        return await self._reached().get(key)

    async def get_many(self, keys: Sequence[str]) -> Mapping[str, Item]:
        return await self._reached().get_many(keys)

    async def create(self, key: str, value: bytes) -> None:
        await self._reached().create(key, value)

    async def put(self, key: str, value: bytes, *, etag: str | None = None) -> None:
        await self._reached().put(key, value, etag=etag)

    async def delete(self, key: str, *, etag: str | None = None) -> None:
        await self._reached().delete(key, etag=etag)

    async def check(self) -> None:
        self._reached()


async def taken_over(world: World, toy: Toy, gate: asyncio.Event) -> dict[str, object]:
    """One replica begins `once:pay` and loses its store; another takes the run over; then the call goes on."""
    store, clock = MemoryStateStore("s"), SystemClock()
    first, second = Losable(store), Losable(store)
    engine, jobs = MemoryEngine(clock=clock), MemoryJobs(clock=clock)

    def runner(slot: str, reached: Losable) -> Runner:
        place = Place("app", Slot(slot), {"toy": reached}, engine, jobs)
        return Runner(place, {"toy/one": toy}, clock=clock, ids=SystemIds(), metrics=make_metrics(), limits=LIMITS)

    async with AsyncExitStack() as stack:
        other = await stack.enter_async_context(runner("b", second))
        owner = await stack.enter_async_context(runner("a", first))
        run = await ask(owner, "once:pay")
        while world.begun == 0:
            await asyncio.sleep(0.005)
        first.lost = True
        telling = asyncio.create_task(other.wait(run, 10))
        while (await other.view(owner.subject("toy/one", "s"))).control.slot != "b":
            await asyncio.sleep(0.005)
        await asyncio.sleep(4 * LIMITS.start_by_s)  # the adopter has long asked what became of the call
        gate.set()
        return dict(await telling)


@pytest.mark.parametrize("limit_s", [1.0, None])
async def test_a_call_that_is_still_at_work_elsewhere_is_not_made_again(limit_s: float | None) -> None:
    gate = asyncio.Event()
    world = World(gates={"once:pay": gate})
    told = await taken_over(world, Toy(world, reconcile=True, limit_s=limit_s), gate)
    assert world.done == {"once:pay": 1}
    expected = "did once:pay" if limit_s else "unknown"
    assert told["result"] == {"results": [expected]}


class DeafEngine(MemoryEngine):
    """Says of every host that it runs, and never runs one: what an engine that lost its timers looks like."""

    async def start(self, instance: str, input: JsonObject) -> None:
        self.started = instance

    async def status(self, instance: str) -> HostStatus | None:
        return HostStatus.RUNNING


async def test_a_run_whose_host_slept_through_its_timer_is_driven_on_by_the_sweep() -> None:
    clock, world = SystemClock(), World()
    jobs = MemoryJobs(clock=clock)
    place = Place("app", Slot("a"), {"toy": MemoryStateStore("s")}, DeafEngine(clock=clock), jobs)
    limits = replace(LIMITS, host_after_s=0.05, overdue_s=0.1)
    toy = Toy(world, approval_s=0.2)
    runner = Runner(place, {"toy/one": toy}, clock=clock, ids=SystemIds(), metrics=make_metrics(), limits=limits)
    async with runner:
        run = await ask(runner, "once:pay")
        told = {"status": ""}
        async with asyncio.timeout(10):
            while told["status"] != "done":
                await jobs.deliver("perdure-sweep", {})
                told = dict(await runner.wait(run, 0.1, stop_on_wait=False))
    assert told["result"] == {"results": ["nobody approved this call in time; it was not run"]}


class Lagging(Losable):
    """A store through which the list of what a replica drives arrives late."""

    def __init__(self, store: MemoryStateStore) -> None:
        super().__init__(store)
        self.listed = asyncio.Event()

    async def put(self, key: str, value: bytes, *, etag: str | None = None) -> None:
        if "replica/" in key:
            await self.listed.wait()
        await super().put(key, value, etag=etag)


async def test_a_driver_that_is_not_listed_yet_is_not_taken_for_a_dead_one() -> None:
    """Claim and list are written at once; who sees only the claim looks again instead of taking the run over."""
    store, clock, world = MemoryStateStore("s"), SystemClock(), World()
    engine, jobs = MemoryEngine(clock=clock), MemoryJobs(clock=clock)
    lagging = Lagging(store)
    limits = replace(LIMITS, stale_s=5.0)

    def runner(slot: str, reached: Losable) -> Runner:
        place = Place("app", Slot(slot), {"toy": reached}, engine, jobs)
        toy = Toy(world)
        return Runner(place, {"toy/one": toy}, clock=clock, ids=SystemIds(), metrics=make_metrics(), limits=limits)

    async with runner("a", lagging) as first, runner("b", Losable(store)) as second:
        begun = asyncio.create_task(ask(first, "read:look"))
        while not (await store.get_many([f"log/{first.subject('toy/one', 's')}/0000000001"])):
            await asyncio.sleep(0.001)
        joined = await ask(second, "read:look")
        view = await second.view(second.subject("toy/one", "s"))
        assert (view.control.epoch, view.control.slot) == (1, "a")
        lagging.listed.set()
        assert await begun == joined
        told = await second.wait(joined, 5)
    assert told["status"] == "done"
    assert world.begun == 1


class Reluctant(Toy):
    """Its target is away for the first few tries."""

    async def do(self, action: Action, doing: Doing) -> Sequence[Event]:
        self.world.begun += 1
        if self.world.begun < 5:
            raise SidecarUnavailable("target_away", "try again")
        return await super().do(action, doing)


async def test_putting_off_a_call_adds_nothing_to_the_log() -> None:
    clock, world = SystemClock(), World()
    engine, jobs = MemoryEngine(clock=clock), MemoryJobs(clock=clock)
    place = Place("app", Slot("a"), {"toy": MemoryStateStore("s")}, engine, jobs)
    limits = replace(LIMITS, retry_s=0.001)
    runner = Runner(
        place, {"toy/one": Reluctant(world)}, clock=clock, ids=SystemIds(), metrics=make_metrics(), limits=limits
    )
    async with runner:
        run = await ask(runner, "idempotent:put")
        told = await runner.wait(run, 5)
        events = [event.t async for _, _, event in runner.events(run)]
    assert told["result"] == {"results": ["did idempotent:put"]}
    assert events == ["accepted", "reserved", "settled", "closed"]
