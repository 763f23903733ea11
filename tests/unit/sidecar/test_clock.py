"""The clock for tests moves only when told, and wakes sleepers in order."""

from __future__ import annotations

import asyncio

from perdure.testing.clock import FakeClock


async def test_sleepers_wake_in_order_at_their_own_moments() -> None:
    clock = FakeClock()
    woken: list[tuple[str, float]] = []

    async def sleeper(name: str, *seconds: float) -> None:
        for part in seconds:
            await clock.sleep(part)
        woken.append((name, clock.monotonic()))

    async with asyncio.TaskGroup() as group:
        group.create_task(sleeper("late", 3.0))
        group.create_task(sleeper("twice", 1.0, 1.0))
        group.create_task(sleeper("never-early", 5.0))
        await clock.advance(4.0)
        assert woken == [("twice", 2.0), ("late", 3.0)]
        assert clock.monotonic() == 4.0
        assert clock.sleeping == 1
        await clock.advance(1.0)
    assert woken[-1] == ("never-early", 5.0)


async def test_the_wall_clock_moves_with_it() -> None:
    clock = FakeClock()
    before = clock.now()
    await clock.advance(90)
    assert (clock.now() - before).total_seconds() == 90


async def test_a_cancelled_sleeper_is_forgotten() -> None:
    clock = FakeClock()
    sleeping = asyncio.ensure_future(clock.sleep(1))
    await clock.settle()
    sleeping.cancel()
    await asyncio.gather(sleeping, return_exceptions=True)
    assert clock.sleeping == 0
    await clock.advance(2)
