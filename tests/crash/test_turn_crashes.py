"""Every boundary of a turn with tools of each effect is a crash point; afterwards the promises hold."""

from __future__ import annotations

import asyncio
from functools import cache

from hypothesis import given, settings
from hypothesis import strategies as st

from bank_stage import Bank
from crash_stage import Stage, boundaries


@cache
def crossed() -> int:
    banks: list[Bank] = []

    def stage() -> Stage:
        banks.append(Bank())
        return banks[-1].stage

    return len(boundaries(stage, lambda _: banks[-1].client))


async def lived(*crashes: int, slots: str = "aaaa") -> None:
    bank, cut = Bank(), []
    for crash_at, slot in zip(crashes, slots, strict=False):
        dead = await bank.stage.life(bank.client, crash_at=crash_at, slot=slot)
        cut.append(f"{len(dead.boundaries)} ({dead.boundaries[-1]})")
    try:
        await bank.stage.life(bank.client, slot=slots[len(crashes)])
        bank.check()
    except AssertionError as error:
        raise AssertionError(f"after crashes at {', '.join(cut)}: {error}") from error


def test_a_turn_survives_a_crash_at_every_boundary() -> None:
    """Three calls side by side, then one of which nobody can say what became of it, then the answer."""
    assert crossed() >= 20

    async def each() -> None:
        for k in range(1, crossed() + 1):
            await lived(k)

    asyncio.run(each())


@settings(max_examples=25, deadline=None, derandomize=True, database=None)
@given(st.lists(st.integers(1, 36), min_size=2, max_size=3), st.sampled_from(["aaaa", "abab", "aabb"]))
def test_a_turn_survives_several_crashes(crashes: list[int], slots: str) -> None:
    """Pairs and triples of crash points, in lives of one slot or of two."""
    asyncio.run(lived(*crashes, slots=slots))
