"""Every boundary of a small run is a crash point; afterwards the promises hold."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from crash_stage import Client, Stage, boundaries
from toy_stage import Toys

MAKERS: dict[str, Callable[[], Toys]] = {
    "tell": Toys,
    "reconcile": lambda: Toys(reconcile=True),
}


def crossed(make: Callable[[], Toys]) -> int:
    toys: list[Toys] = []

    def stage() -> Stage:
        toys.append(make())
        return toys[-1].stage

    def client(_: Stage) -> Client:
        return toys[-1].client

    return len(boundaries(stage, client))


@pytest.mark.parametrize("policy", MAKERS)
def test_a_run_survives_a_crash_at_every_boundary(policy: str) -> None:
    """Same slot: a crash at boundary k, for each k, and the next life ends the run once, with the right answer."""
    count = crossed(MAKERS[policy])
    assert count >= 20

    async def each() -> None:
        for k in range(1, count + 1):
            toys = MAKERS[policy]()
            dead = await toys.stage.life(toys.client, crash_at=k)
            await toys.stage.life(toys.client)
            try:
                toys.check()
            except AssertionError as error:
                raise AssertionError(f"crash at {k}: {dead.boundaries[-1]}") from error

    asyncio.run(each())
