"""Writes that were done without an answer, or never arrived: a driver recognises its own commits, nothing sticks."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest

from bank_stage import Bank
from crash_stage import UnsureStore
from toy_stage import Toys
from turn_loop import asks, call

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


@pytest.mark.parametrize("never", [True, False], ids=["never-arrived", "written"])
@pytest.mark.parametrize("approval_s", [None, 4.0], ids=["at-once", "asks"])
def test_a_run_that_begins_with_an_effect_or_a_question_is_cared_for(approval_s: float | None, never: bool) -> None:
    """All of it is in the accepting commit: the effect happens once; the question expires by itself."""

    async def each() -> None:
        for first in range(1, 12):
            toys = Toys(approval_s=approval_s)
            store = UnsureStore(toys.stage.store, [first], never=never)
            await toys.stage.life(toys.bystander, store=store)
            toys.stage.check(toys.stage.said[0]["run"])
            results = toys.stage.said[0]["result"]["results"]
            if approval_s is None:
                assert (results, toys.world.done["once:c"]) == (["did once:c"], 1), first
            else:
                assert results == ["nobody approved this call in time; it was not run"], first
                assert toys.world.done["once:c"] == 0

    asyncio.run(each())


@pytest.mark.parametrize("never", [True, False], ids=["never-arrived", "written"])
@pytest.mark.parametrize("length", [2, 3])
def test_outcomes_that_come_while_a_save_is_unanswered_are_kept(never: bool, length: int) -> None:
    """Three calls side by side end at different times; each outcome is recorded once, none is forgotten."""

    async def each() -> None:
        for first in range(1, 20):
            bank = Bank(slow=True)
            store = UnsureStore(bank.stage.store, range(first, first + length), never=never)
            try:
                await bank.stage.life(bank.client, store=store)
                bank.check()
                assert bank.done == {"look": 1, "put": 1, "pay": 1, "send": 1}
                begun = Counter(key for _, _, key in bank.stage.begun)
                assert set(begun.values()) == {1}, "nothing was cut, so nothing is begun twice"
            except AssertionError as error:
                raise AssertionError(f"lost from {first}: {error}") from error

    asyncio.run(each())


@pytest.mark.parametrize("never", [True, False], ids=["never-arrived", "written"])
def test_a_question_that_comes_up_later_expires_by_itself(never: bool) -> None:
    """The save that ends the drive, with the wait and the host in it, is the one that is not answered."""

    async def each() -> None:
        for first in range(1, 16):
            bank = Bank(replies=[asks(call("sign", "{}", "1")), "never mind"])
            store = UnsureStore(bank.stage.store, [first], never=never)
            await bank.stage.life(bank.patient, store=store)
            told = bank.stage.said[0]
            assert (told["status"], told["answer"]) == ("done", "never mind"), f"lost {first}: {told}"
            bank.stage.check(told["run"])

    asyncio.run(each())
