"""Writes that were done without an answer, or never arrived: a driver recognises its own commits, nothing sticks."""

from __future__ import annotations

import asyncio

import pytest

from crash_stage import UnsureStore
from toy_stage import Toys

WRITES = {"plain": 14, "approval": 32}
"""More than such a run of four steps makes."""


@pytest.mark.parametrize("never", [True, False], ids=["never-arrived", "written"])
@pytest.mark.parametrize("length", [1, 4])
@pytest.mark.parametrize("policy", WRITES)
def test_any_unanswered_write_changes_nothing(policy: str, never: bool, length: int) -> None:
    """One after the other, and several in a row: every step happens once, and its outcome is known.

    In turn somebody waits for the run, or only looks now and then.
    """

    async def each() -> None:
        for first in range(1, WRITES[policy] + 1, 1 if length == 1 else 3):
            toys = Toys(approval_s=600 if policy == "approval" else None)
            lost = range(first, first + length)
            store = UnsureStore(toys.stage.store, lost, never=never)
            try:
                await toys.stage.life(toys.onlooker if first % 2 else toys.client, store=store)
                toys.check()
                assert toys.world.done["once:c"] == 1
                assert toys.world.done["read:a"] == 1
            except AssertionError as error:
                raise AssertionError(f"lost {list(lost)}: {error}") from error

    asyncio.run(each())
