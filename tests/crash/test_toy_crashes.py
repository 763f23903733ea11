"""Every boundary of a small run is a crash point; afterwards the promises hold."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crash_stage import Stage, boundaries
from perdure.effect import Doubt
from toy_stage import Toys

MAKERS: dict[str, Callable[[], Toys]] = {
    "tell": Toys,
    "reconcile": lambda: Toys(reconcile=True),
    "approval": lambda: Toys(approval_s=600),
    "approval-reconcile": lambda: Toys(approval_s=600, reconcile=True),
    "ask": lambda: Toys(doubt=Doubt.ASK, reconcile=True),
}


@cache
def crossed(policy: str) -> int:
    toys: list[Toys] = []

    def stage() -> Stage:
        toys.append(MAKERS[policy]())
        return toys[-1].stage

    return len(boundaries(stage, lambda _: toys[-1].client))


async def lived(policy: str, *crashes: int, slots: str = "aaaa", last: str = "client") -> None:
    """Lives that end at these boundaries, then one that stays; then the promises hold."""
    toys = MAKERS[policy]()
    cut = []
    for crash_at, slot in zip(crashes, slots, strict=False):
        dead = await toys.stage.life(toys.client, crash_at=crash_at, slot=slot)
        cut.append(f"{len(dead.boundaries)} ({dead.boundaries[-1]})")
    try:
        await toys.stage.life(getattr(toys, last), slot=slots[len(crashes)])
        toys.check()
    except AssertionError as error:
        raise AssertionError(f"after crashes at {', '.join(cut)}: {error}") from error


@pytest.mark.parametrize("policy", MAKERS)
def test_a_run_survives_a_crash_at_every_boundary(policy: str) -> None:
    """Same slot: a crash at boundary k, for each k, and the next life ends the run once, with the right answer.

    In turn somebody waits for it there, or only looks now and then.
    """
    assert crossed(policy) >= 20

    async def each() -> None:
        for k in range(1, crossed(policy) + 1):
            await lived(policy, k, last="onlooker" if k % 2 else "client")

    asyncio.run(each())


@pytest.mark.parametrize("last", ["client", "onlooker"])
@pytest.mark.parametrize("policy", ["reconcile", "approval"])
def test_another_replica_carries_on_after_a_crash_at_every_boundary(policy: str, last: str) -> None:
    """Nobody comes back to the slot: the run is found stale, or by whoever waits for it."""

    async def each() -> None:
        for k in range(1, crossed(policy) + 1, 3):
            await lived(policy, k, slots="ab", last=last)

    asyncio.run(each())


@settings(max_examples=30, deadline=None, derandomize=True, database=None)
@given(
    st.sampled_from(list(MAKERS)),
    st.lists(st.integers(1, 40), min_size=2, max_size=3),
    st.sampled_from(["aaaa", "abab", "aabb"]),
    st.sampled_from(["client", "onlooker"]),
)
def test_a_run_survives_several_crashes(policy: str, crashes: list[int], slots: str, last: str) -> None:
    """Pairs and triples of crash points, in lives of one slot or of two."""
    asyncio.run(lived(policy, *crashes, slots=slots, last=last))
