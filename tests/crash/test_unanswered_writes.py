"""Writes that were done without an answer, or never arrived: a driver recognises its own commits, nothing sticks."""

from __future__ import annotations

import asyncio

import pytest

from crash_stage import UnsureStore
from perdure.errors import Transient
from perdure.run.runner import Runner
from perdure.types import JsonObject
from toy_stage import Toys, ask

WRITES = 14
"""More than a toy run of four steps makes."""


def patient(toys: Toys, *, waits: bool) -> object:
    """A client that repeats with the same key what was not answered, and then waits, or only looks now and then."""

    async def client(runner: Runner) -> JsonObject:
        while True:
            try:
                run = await ask(runner)
                break
            except Transient:
                await toys.stage.clock.sleep(0.1)
        if waits:
            return {"run": run, **await runner.wait(run, 50)}
        while (told := await runner.describe(run))["status"] != "done":
            await toys.stage.clock.sleep(0.5)
        return {"run": run, **told}

    return client


@pytest.mark.parametrize("waits", [True, False], ids=["waits", "looks"])
@pytest.mark.parametrize("never", [True, False], ids=["never-arrived", "written"])
@pytest.mark.parametrize("length", [1, 2, 3])
def test_any_unanswered_write_changes_nothing(never: bool, waits: bool, length: int) -> None:
    """One after the other, and up to three in a row: every step happens once, and its outcome is known."""

    async def each() -> None:
        for first in range(1, WRITES + 1):
            toys = Toys()
            lost = range(first, first + length)
            store = UnsureStore(toys.stage.store, lost, never=never)
            await toys.stage.life(patient(toys, waits=waits), store=store)
            try:
                toys.check()
                assert toys.world.done["once:c"] == 1
                assert toys.world.done["read:a"] == 1
            except AssertionError as error:
                raise AssertionError(f"lost {list(lost)}") from error

    asyncio.run(each())
