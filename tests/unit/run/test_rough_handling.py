"""The runner under defects, stale knowledge, stores that stay away, and endings in the middle of things."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import pytest

from crash_stage import Stage, UnsureStore, commits, logged
from perdure.effect import Doubt
from perdure.errors import Broken, Conflict, Transient
from perdure.run.control import Control
from perdure.run.event import Event, EventCodec
from perdure.run.kind import Action, Doing, Verdict
from perdure.run.plan import View
from perdure.run.runner import Runner
from perdure.testing.crash import Process
from toy import Toy, ToyState, World, begin
from toy_stage import approve, ask


def staged(world: World, made: Any = Toy, **options: Any) -> Stage:
    return Stage(lambda _: {"toy/one": made(world, **options)})


class Killer(Toy):
    """Its idempotent steps kill the process that does them."""

    def __init__(self, world: World, process: Process) -> None:
        super().__init__(world)
        self._process = process

    async def do(self, action: Action, doing: Doing) -> Sequence[Event]:
        if action.effect == "idempotent":
            self._process.kill()
        return await super().do(action, doing)


def test_a_step_that_kills_every_driver_is_parked_and_what_was_queued_behind_it_runs() -> None:
    """Reserving it anew is no progress; nothing that was accepted meanwhile is lost with it."""
    stage = Stage(lambda process: {"toy/one": Killer(World(), process)})

    async def client(runner: Runner) -> Any:
        first = await ask(runner, "idempotent:x", key="first")
        second = await ask(runner, "read:b", key="second")
        return [await runner.wait(run, 50) for run in (first, second)]

    async def lives() -> None:
        for _ in range(stage.limits.max_claims + 2):
            await stage.life(client)

    stage.do(lives())
    first, second = stage.said[0]
    assert (first["status"], first["result"]["error"]["code"]) == ("failed", "poison")
    assert second["status"] == "done"


class Faulty(Toy):
    """Decides nothing about steps named bad while `ill`."""

    ill = 0

    def decide(self, state: ToyState, control: Control) -> Verdict:
        task = next(iter(state.tasks.values()), None)
        if Faulty.ill and task is not None and any(step.endswith("bad") for step in task.steps):
            Faulty.ill -= 1
            raise KeyError("bad")
        return super().decide(state, control)


def test_a_defect_of_one_kind_neither_stops_the_start_nor_other_runs_and_heals_with_a_release() -> None:
    """What cannot be adopted stays listed until a life of the slot can."""
    world = World(gates={"read:bad": asyncio.Event()})
    stage = staged(world, Faulty)
    runs: list[str] = []

    async def bad(runner: Runner) -> Any:
        runs.append(await ask(runner, "read:bad", session="bad"))
        await asyncio.Event().wait()

    async def well(runner: Runner) -> Any:
        run = await ask(runner, "read:b", session="well")
        stage.told["well"] = await runner.wait(run, 5)
        await stage.clock.sleep(5)
        raise ConnectionAbortedError

    async def healed(runner: Runner) -> Any:
        return await runner.wait(runs[0], 20)

    async def lives() -> None:
        dead = asyncio.create_task(stage.life(bad, crash_at=7))
        await dead
        Faulty.ill = 1000
        with pytest.raises(ConnectionAbortedError):
            await stage.life(well)
        Faulty.ill = 0
        world.gates["read:bad"].set()
        await stage.life(healed)

    stage.do(lives(), 200)
    assert stage.told["well"]["status"] == "done"
    assert stage.said[-1]["status"] == "done"


def test_who_waits_for_a_run_whose_drive_failed_hears_of_its_end() -> None:
    """It is adopted again by the same replica, and goes on."""
    stage = staged(World(), Faulty)

    async def client(runner: Runner) -> Any:
        run = await ask(runner, "read:a", "read:bad")
        Faulty.ill = 1
        return await runner.wait(run, 20)

    stage.do(stage.life(client))
    assert stage.said[0]["status"] == "done"
    assert stage.said[0]["result"] == {"results": ["did read:a", "did read:bad"]}


def test_an_action_that_cancels_itself_fails_its_run_instead_of_going_round() -> None:
    """A library that raises CancelledError is a failure like any other."""

    class Cancelled(Toy):
        async def do(self, action: Action, doing: Doing) -> Sequence[Event]:
            self.world.done[action.name] += 1
            raise asyncio.CancelledError

    world = World()
    stage = staged(world, Cancelled)

    async def client(runner: Runner) -> Any:
        return await runner.wait(await ask(runner, "read:a"), 20)

    stage.do(stage.life(client))
    assert stage.said[0]["status"] == "failed"
    assert world.done["read:a"] == 1


def test_what_is_put_off_again_and_again_is_asked_for_ever_more_rarely() -> None:
    """The pause doubles up to its limit, also for what is never reserved."""

    class Away(Toy):
        async def do(self, action: Action, doing: Doing) -> Sequence[Event]:
            self.world.done[action.name] += 1
            if self.world.done[action.name] < 8:
                raise Transient("model_unavailable", "away")
            return await super().do(action, doing)

    world = World()
    stage = staged(world, Away)

    async def client(runner: Runner) -> Any:
        began = stage.clock.monotonic()
        await runner.wait(await ask(runner, "read:a"), 50)
        return stage.clock.monotonic() - began

    stage.do(stage.life(client))
    assert stage.said[0] > 6 * stage.limits.retry_max_s


@dataclass(frozen=True, slots=True)
class Novelty:
    """An event that only the newer release knows."""

    t: Literal["novelty"] = "novelty"


class Newer(Toy):
    def __init__(self, world: World) -> None:
        super().__init__(world)
        self.codec = EventCodec((Novelty,))

    async def do(self, action: Action, doing: Doing) -> Sequence[Event]:
        return [Novelty(), *await super().do(action, doing)]


def test_an_older_release_appends_nothing_to_what_it_cannot_read() -> None:
    """It says so each time, whatever it knew before, and its log stays as it was."""
    world, releases = World(), [Newer, Toy]
    stage = Stage(lambda process: {"toy/one": (Newer if process.name == "new" else Toy)(world)})
    assert releases

    async def both() -> None:
        old, new = Process(0, "old"), Process(0, "new")
        async with stage.runner(old, "old", sweeps=False) as older, stage.runner(new, "new", sweeps=False) as newer:
            await older.wait(await ask(older, "read:a", key="one"), 20)
            await newer.wait(await ask(newer, "read:b", key="two"), 20)
            before = len(commits(stage.store))
            for _ in range(2):
                with pytest.raises(Broken, match="release"):
                    await ask(older, "read:c", key="three")
            assert len(commits(stage.store)) == before
            assert (await newer.wait(await ask(newer, "read:d", key="four"), 20))["status"] == "done"

    stage.do(both())


def test_a_replica_that_looked_long_ago_looks_again() -> None:
    """Describing, approving and refusing are never decided from what another replica has moved on from."""
    stage = staged(World(), approval_s=600)

    def alone(view: View[Any]) -> list[Event]:
        if view.control.current is not None:
            raise Conflict("turn_running", "one is running")
        return [begin(["read:b"], "k2")]

    async def both() -> None:
        async with (
            stage.runner(Process(0, "a"), "a", sweeps=False) as a,
            stage.runner(Process(0, "b"), "b", sweeps=False) as b,
        ):
            run = await ask(a, "read:a")
            assert (await b.describe(run))["status"] == "waiting"
            with pytest.raises(Conflict, match="one is running"):
                await b.accept("toy/one", b.subject("toy/one", "s"), alone)
            await approve(b, run)
            await a.wait(run, 20, stop_on_wait=False)
            assert (await a.describe(run))["status"] == (await b.describe(run))["status"] == "done"
            next_run = (await b.accept("toy/one", b.subject("toy/one", "s"), alone)).run_id
            await b.wait(next_run, 20)
            asked = (await a.view(a.subject("toy/one", "s"))).control.approvals.values()
            for approval in asked:
                await a.approve(next_run, approval.call, approval.digest, "ann")
            assert (await b.wait(next_run, 20, stop_on_wait=False))["status"] == "done"
            third = (await a.accept("toy/one", a.subject("toy/one", "s"), alone)).joined
            assert third is False

    stage.do(both())


@pytest.mark.parametrize("doubt", [Doubt.TELL, Doubt.ASK])
def test_closing_in_the_middle_of_a_once_step_records_the_doubt_and_the_next_life_follows_the_policy(
    doubt: Doubt,
) -> None:
    """Cut after its time: in doubt, released, adopted, told as unknown or asked; never simply run again."""
    world = World(gates={"once:c": asyncio.Event()})
    stage = staged(world, doubt=doubt)
    runs: list[str] = []

    async def cut(runner: Runner) -> None:
        runs.append(await ask(runner, "read:a", "once:c"))
        await stage.clock.sleep(1)

    async def after(runner: Runner) -> Any:
        return await runner.wait(runs[0], 20)

    async def lives() -> None:
        async with stage.runner(Process(0, "one")) as runner:
            await cut(runner)
        assert [event["why"] for event in logged(stage.store, "doubted")] == ["cancelled"]
        assert logged(stage.store, "released")
        async with stage.runner(Process(0, "two")) as runner:
            stage.said.append(await after(runner))

    stage.do(lives())
    if doubt is Doubt.TELL:
        assert stage.said[0]["result"] == {"results": ["did read:a", "unknown"]}
    else:
        assert stage.said[0]["status"] == "waiting"
    assert world.done["once:c"] == 0


def test_closing_waits_for_a_step_that_ends_in_time() -> None:
    """What came of it is recorded with the release: no fact is lost."""
    gate = asyncio.Event()
    world = World(gates={"once:c": gate})
    stage = staged(world)

    async def lives() -> None:
        async with stage.runner(Process(0, "one")) as runner:
            await ask(runner, "once:c")
            await stage.clock.sleep(0.5)
            asyncio.get_running_loop().call_soon(gate.set)
        assert [event["key"] for event in logged(stage.store, "settled")] == ["1.1.0"]
        assert logged(stage.store, "doubted") == []

    stage.do(lives())


def test_closing_ends_also_while_the_store_stays_away() -> None:
    """The release cannot be recorded; the next life carries on from the log."""
    world = World(gates={"once:c": asyncio.Event()})
    stage = staged(world, reconcile=True)

    async def lives() -> float:
        away = UnsureStore(stage.store, range(7, 10_000), never=True)
        async with stage.runner(Process(0, "one"), store=away) as runner:
            run = await ask(runner, "read:a", "once:c")
            await stage.clock.sleep(1)
            began = stage.clock.monotonic()
        took = stage.clock.monotonic() - began
        world.gates["once:c"].set()
        async with stage.runner(Process(0, "two")) as runner:
            stage.said.append(await runner.wait(run, 20))
        return took

    assert stage.do(lives(), 100) < 4 * stage.limits.shutdown_s
    assert stage.said[0]["status"] == "done"
    assert world.done["once:c"] == 1


def test_an_idle_replica_does_nothing_at_all() -> None:
    """After runs end nothing ticks, and its document names nothing."""
    stage = staged(World(), approval_s=None)

    async def live() -> int:
        async with stage.runner(Process(0, "one"), sweeps=False) as runner:
            for number in range(3):
                await runner.wait(await ask(runner, "read:a", "once:b", session=f"s{number}", key=f"k{number}"), 20)
            await stage.clock.sleep(3 * stage.limits.beat_s)
            await asyncio.sleep(0)
            while stage.clock.sleeping:
                await stage.clock.sleep(0)
            assert stage.listed() == {}
            return stage.clock.sleeping

    assert stage.do(live()) == 0
