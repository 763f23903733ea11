"""Two replicas of one app over the same stores: one drives, and when it stops the other carries on."""

from __future__ import annotations

import asyncio
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crash_stage import commits
from perdure.run.runner import Runner
from perdure.testing.crash import Process
from perdure.types import JsonObject
from spread_engine import SpreadEngine
from toy_stage import Toys

POINTS = 50


async def stopped(toys: Toys, point: int, how: str, seed: int) -> tuple[str, bool]:
    """Replica a accepts and stops at that boundary; b, which lives beside it, carries on; a is thawed, if it can be.

    Where a was stopped, and whether anything of it was added to the log afterwards beside outcomes.
    """
    stage, chance = toys.stage, random.Random(seed)
    engine = SpreadEngine(stage.clock, chance.randrange)
    a = Process(point if how == "kill" else 0, "a", freeze_at=point if how == "freeze" else 0)
    b = Process(0, "b")
    first = stage.begin(toys.client, a, "a", engine)

    async def later(runner: Runner) -> JsonObject:
        await stage.until_stopped(a, first)
        return await toys.onlooker(runner)

    second = stage.begin(later, b, "b", engine)
    began = stage.clock.monotonic()
    limit = stage.limits.stale_s * 3 + stage.limits.sweep_every_s * 2 + 10
    await stage.until(lambda: b.name in stage.told, patience_s=limit)
    where = a.boundaries[-1]
    before = len(commits(stage.store))
    a.thaw()
    await stage.pass_time(8)
    added = commits(stage.store)[before:]
    stage.closing.set()
    await stage.until(lambda: (first.done() or a.dead) and second.done())
    second.result()
    await engine.close()
    await a.bury()
    await b.bury()
    assert stage.clock.monotonic() > began
    strange = [event for commit in added for event in commit["ev"] if event["t"] != "settled"]
    return where, bool(strange)


@pytest.mark.parametrize("how", ["kill", "freeze"])
@pytest.mark.parametrize("approval_s", [None, 600], ids=["plain", "approval"])
def test_when_one_stops_the_other_carries_on(how: str, approval_s: float | None) -> None:
    """At every boundary; a frozen one adds nothing when it is thawed but the outcome of what it had reserved."""

    async def each() -> None:
        for point in range(1, POINTS, 3):
            toys = Toys(reconcile=True, approval_s=approval_s)
            try:
                where, strange = await stopped(toys, point, how, point)
                if how == "freeze" and where.startswith("before do"):
                    continue  # only the target can refuse an effect of a process that was frozen right before it
                toys.check()
                assert not strange
            except AssertionError as error:
                raise AssertionError(f"{how} at {point}: {error}") from error

    asyncio.run(each())


@settings(max_examples=15, deadline=None, derandomize=True, database=None)
@given(st.integers(0, 10_000), st.booleans())
def test_however_activities_are_spread_each_effect_happens_once(seed: int, ask: bool) -> None:
    """Approvals and waits go through hosts, whose activities reach either replica, or both at once."""

    async def live() -> None:
        toys = Toys(approval_s=600)
        stage = toys.stage
        engine = SpreadEngine(stage.clock, random.Random(seed).randrange)
        processes = [Process(0, name) for name in "ab"]
        clients = [toys.client, toys.onlooker] if ask else [toys.onlooker, toys.client]
        tasks = [
            stage.begin(client, process, process.name, engine)
            for client, process in zip(clients, processes, strict=True)
        ]
        await stage.until(lambda: len(stage.told) == 2)
        await stage.pass_time(4)
        stage.closing.set()
        await stage.until(lambda: all(task.done() for task in tasks))
        await engine.close()
        toys.check()
        assert toys.world.done["once:c"] == 1
        assert tasks[0].result() == tasks[1].result()
        assert engine.given > 0

    asyncio.run(live())
