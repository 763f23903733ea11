"""The runner with a toy kind over memory doors: what a service may ask, and what it gets."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager

import pytest

from perdure.clock import SystemClock, SystemIds
from perdure.effect import Doubt
from perdure.errors import Busy, Conflict, NotFound
from perdure.observability.metrics import make_metrics
from perdure.run.control import Control
from perdure.run.plan import View
from perdure.run.rescue import ADOPTED_FIRST
from perdure.run.runner import Place, RunLimits, Runner
from perdure.sidecar.memory.engine import MemoryEngine
from perdure.sidecar.memory.jobs import MemoryJobs
from perdure.sidecar.memory.store import MemoryStateStore
from perdure.sidecar.ports import Item, StateStore
from perdure.types import Slot
from toy import Toy, World, begin

FAST = RunLimits(host_after_s=0.05, start_by_s=0.05, shutdown_s=0.2, poll_s=0.02, beat_s=0.04, stale_s=0.2)


@asynccontextmanager
async def opened(
    toy: Toy, store: StateStore, *, slot: str = "a", engine: MemoryEngine | None = None, limits: RunLimits = FAST
) -> AsyncIterator[Runner]:
    clock = SystemClock()
    place = Place("app", Slot(slot), {"toy": store}, engine or MemoryEngine(clock=clock), MemoryJobs(clock=clock))
    async with AsyncExitStack() as stack:
        runner = Runner(place, {"toy/one": toy}, clock=clock, ids=SystemIds(), metrics=make_metrics(), limits=limits)
        await stack.enter_async_context(runner)
        await stack.enter_async_context(runner.hosting())
        yield runner


async def ask(runner: Runner, *steps: str, session: str = "s", key: str = "") -> str:
    def decide(view: View[object]) -> list[object] | int:
        used = view.control.keys.get(key) if key else None
        if used is not None:
            return used.run
        return [begin(steps, key)]

    accepted = await runner.accept("toy/one", runner.subject("toy/one", session), decide)
    return accepted.run_id


async def test_a_run_does_its_steps_in_order_and_ends() -> None:
    world, store = World(), MemoryStateStore("s")
    async with opened(Toy(world), store) as runner:
        run = await ask(runner, "read:a", "idempotent:b", "once:c")
        told = await runner.wait(run, 5)
    assert world.ended == [run]
    assert told["status"] == "done"
    assert told["result"] == {"results": ["did read:a", "did idempotent:b", "did once:c"]}
    assert world.done == {"read:a": 1, "idempotent:b": 1, "once:c": 1}


async def test_the_same_key_joins_the_same_run() -> None:
    world = World()
    async with opened(Toy(world), MemoryStateStore("s")) as runner:
        first = await ask(runner, "once:a", key="k")
        await runner.wait(first, 5)
        assert await ask(runner, "once:a", key="k") == first
    assert world.done == {"once:a": 1}


async def test_runs_of_one_subject_follow_one_another() -> None:
    world = World(gates={"read:a": asyncio.Event()})
    async with opened(Toy(world), MemoryStateStore("s")) as runner:
        first = await ask(runner, "read:a")
        second = await ask(runner, "read:b")
        assert world.done == {}
        world.gates["read:a"].set()
        assert (await runner.wait(second, 5))["status"] == "done"
        assert (await runner.describe(first))["status"] == "done"


async def test_an_approval_is_waited_for_shown_and_consumed_once() -> None:
    world, store = World(), MemoryStateStore("s")
    async with opened(Toy(world, approval_s=60), store) as runner:
        run = await ask(runner, "once:a")
        assert (await runner.wait(run, 5))["status"] == "waiting"
        view = await runner.view(runner.subject("toy/one", "s"))
        (approval,) = view.control.approvals.values()
        assert world.done == {}
        with pytest.raises(Conflict, match="digest"):
            await runner.approve(run, approval.call, "other", "ann")
        with pytest.raises(NotFound, match="asked for"):
            await runner.approve(run, "1.1.9", approval.digest, "ann")
        await runner.approve(run, approval.call, approval.digest, "ann")
        assert (await runner.wait(run, 5))["status"] == "done"
        with pytest.raises(Conflict, match="ended"):
            await runner.approve(run, approval.call, approval.digest, "ann")
    assert world.done == {"once:a": 1}


async def test_a_denied_call_is_not_run() -> None:
    world = World()
    async with opened(Toy(world, approval_s=60), MemoryStateStore("s")) as runner:
        run = await ask(runner, "once:a")
        await runner.wait(run, 5)
        view = await runner.view(runner.subject("toy/one", "s"))
        (approval,) = view.control.approvals.values()
        await runner.deny(run, approval.call, "ann", "too dear")
        told = await runner.wait(run, 5)
    assert told["result"] == {"results": ["the call was denied by ann: too dear"]}
    assert world.done == {}


async def test_an_approval_expires_by_itself() -> None:
    world = World()
    async with opened(Toy(world, approval_s=0.2), MemoryStateStore("s")) as runner:
        run = await ask(runner, "once:a")
        told = await runner.wait(run, 5, stop_on_wait=False)
    assert told["result"] == {"results": ["nobody approved this call in time; it was not run"]}
    assert world.done == {}


async def test_a_cancelled_run_stops_its_action_and_tells_the_reason() -> None:
    world = World(gates={"once:a": asyncio.Event()})
    async with opened(Toy(world), MemoryStateStore("s")) as runner:
        run = await ask(runner, "once:a")
        await runner.cancel(run, "changed my mind")
        told = await runner.wait(run, 5)
    assert (told["status"], told["result"]) == ("cancelled", {"reason": "changed my mind"})


async def test_a_paused_run_starts_nothing_until_resumed() -> None:
    world = World(gates={"read:a": asyncio.Event()})
    async with opened(Toy(world), MemoryStateStore("s")) as runner:
        run = await ask(runner, "read:a", "read:b")
        await runner.pause(run)
        world.gates["read:a"].set()
        assert (await runner.wait(run, 5))["status"] == "paused"
        assert world.done == {"read:a": 1}
        await runner.resume(run)
        assert (await runner.wait(run, 5, stop_on_wait=False))["status"] == "done"


async def test_closing_releases_and_the_next_life_of_the_slot_carries_on() -> None:
    world, store = World(gates={"idempotent:b": asyncio.Event()}), MemoryStateStore("s")
    async with opened(Toy(world), store) as runner:
        run = await ask(runner, "once:a", "idempotent:b")
        while not world.done:
            await asyncio.sleep(0.001)
    world.gates["idempotent:b"].set()
    async with opened(Toy(world), store) as runner:
        assert (await runner.wait(run, 5, stop_on_wait=False))["status"] == "done"
    assert world.done == {"once:a": 1, "idempotent:b": 1}


class Held(MemoryStateStore):
    """Reads of what has `part` in its key wait for `go`."""

    part, go = "", asyncio.Event()

    async def get_many(self, keys: Sequence[str]) -> Mapping[str, Item]:
        if self.part and any(self.part in key for key in keys):
            await self.go.wait()
        return await super().get_many(keys)


async def test_after_a_busy_second_a_restart_is_ready_before_it_has_looked_at_everything() -> None:
    """What was listed last is carried on first; what was listed long ago delays nothing and is carried on, too."""
    world, store = World(gates={"read:a": asyncio.Event()}), Held("s")
    busy = RunLimits(beat_s=60, shutdown_s=0.01)  # so nothing is unlisted meanwhile
    async with opened(Toy(world), store, limits=busy) as runner:
        oldest = await ask(runner, "read:a", session="oldest")
        for number in range(ADOPTED_FIRST):
            await runner.wait(await ask(runner, "read:b", session=f"{number}"), 5)
        newest = await ask(runner, "read:a", session="newest")
        store.part, store.go = runner.subject("toy/one", "oldest"), asyncio.Event()
    world.gates["read:a"].set()
    async with asyncio.timeout(10), opened(Toy(world), store, limits=busy) as runner:
        assert (await runner.wait(newest, 5))["status"] == "done"
        store.go.set()
        assert (await runner.wait(oldest, 5))["status"] == "done"


async def test_a_full_replica_says_so() -> None:
    world = World(gates={"read:a": asyncio.Event()})
    limits = RunLimits(max_active_runs=1, shutdown_s=0.01)
    async with opened(Toy(world), MemoryStateStore("s"), limits=limits) as runner:
        await ask(runner, "read:a", session="one")
        with pytest.raises(Busy):
            await ask(runner, "read:b", session="two")
        world.gates["read:a"].set()


async def test_events_are_streamed_from_any_position_to_the_end() -> None:
    world = World(gates={"read:b": asyncio.Event()})
    async with opened(Toy(world), MemoryStateStore("s")) as runner:
        run = await ask(runner, "read:a", "read:b")
        seen = []
        async for n, i, event in runner.events(run):
            seen.append((n, i, event.t))
            world.gates["read:b"].set()
        assert [t for _, _, t in seen] == ["accepted", "settled", "settled", "closed"]
        rest = [(n, i, event.t) async for n, i, event in runner.events(run, after=seen[1][:2])]
        assert rest == seen[2:]


async def test_doubt_is_told_after_a_crash_between_effect_and_commit() -> None:
    """The policies themselves are covered by the laws of `plan`; this is the whole way once."""
    assert Doubt.TELL.value == "tell"
    assert Control().epoch == 0


async def test_work_that_is_cancelled_before_it_began_is_not_left_unawaited() -> None:
    """A warning about it would appear in whatever runs when the garbage is collected."""

    async def work() -> None:
        pass

    async with opened(Toy(World()), MemoryStateStore("s")) as runner:
        runner._crew.spawn(work(), "soon cancelled")
        for task in runner._crew._spawned:
            task.cancel()
    gc.collect()
