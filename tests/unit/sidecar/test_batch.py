"""Writes to a sidecar: alone when the way is free, together when they have to wait."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest
from dapr.proto.common.v1.common_pb2 import StateItem

from perdure.errors import Invalid
from perdure.sidecar.certain import Unsure
from perdure.sidecar.dapr.batch import BYTES_IN_A_CALL, CALLS_ON_THEIR_WAY, ITEMS_IN_A_CALL, Batcher


class Sidecar:
    """Answers each call when told to."""

    def __init__(self) -> None:
        self.calls: list[list[str]] = []
        self.answers: list[asyncio.Future[None]] = []

    async def send(self, items: Sequence[StateItem]) -> None:
        self.calls.append([item.key for item in items])
        answer = asyncio.get_running_loop().create_future()
        self.answers.append(answer)
        await answer


async def settled() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


async def begun(batcher: Batcher, *keys: str, value: bytes = b"v") -> list[asyncio.Task[None]]:
    tasks = [asyncio.create_task(batcher.save(StateItem(key=key, value=value))) for key in keys]
    await settled()
    return tasks


async def crowded(sidecar: Sidecar) -> tuple[Batcher, list[asyncio.Task[None]]]:
    """A batcher with as many calls on their way as it allows."""
    batcher = Batcher(sidecar.send)
    return batcher, await begun(batcher, *(f"first-{n}" for n in range(CALLS_ON_THEIR_WAY)))


async def answer(sidecar: Sidecar, number: int, error: Exception | None = None) -> None:
    if error is None:
        sidecar.answers[number].set_result(None)
    else:
        sidecar.answers[number].set_exception(error)
    await settled()


async def finish(sidecar: Sidecar) -> None:
    while open_ones := [number for number, one in enumerate(sidecar.answers) if not one.done()]:
        await answer(sidecar, open_ones[0])


async def test_nobody_waits_while_the_way_is_free() -> None:
    sidecar = Sidecar()
    _, tasks = await crowded(sidecar)
    assert sidecar.calls == [[f"first-{n}"] for n in range(CALLS_ON_THEIR_WAY)]
    await finish(sidecar)
    await asyncio.gather(*tasks)


async def test_those_that_had_to_wait_go_together() -> None:
    sidecar = Sidecar()
    batcher, first = await crowded(sidecar)
    waiting = await begun(batcher, "a", "b", "c")
    assert len(sidecar.calls) == CALLS_ON_THEIR_WAY
    await answer(sidecar, 0)
    assert sidecar.calls[-1] == ["a", "b", "c"]
    assert not any(task.done() for task in waiting)
    await finish(sidecar)
    await asyncio.gather(*first, *waiting)


async def test_two_writes_of_one_key_are_never_in_one_call() -> None:
    sidecar = Sidecar()
    batcher, first = await crowded(sidecar)
    waiting = await begun(batcher, "a", "b", "a")
    await answer(sidecar, 0)
    assert sidecar.calls[-1] == ["a", "b"]
    await answer(sidecar, len(sidecar.calls) - 1)
    assert sidecar.calls[-1] == ["a"]
    await finish(sidecar)
    await asyncio.gather(*first, *waiting)


async def test_a_call_stays_small_enough() -> None:
    sidecar = Sidecar()
    batcher, first = await crowded(sidecar)
    many = await begun(batcher, *(f"k{n}" for n in range(ITEMS_IN_A_CALL + 3)))
    await answer(sidecar, 0)
    assert len(sidecar.calls[-1]) == ITEMS_IN_A_CALL
    await finish(sidecar)
    await asyncio.gather(*first, *many)
    batcher, first = await crowded(sidecar)
    large = await begun(batcher, "x", "y", value=bytes(BYTES_IN_A_CALL - 1))
    await finish(sidecar)
    await asyncio.gather(*first, *large)
    assert ["x", "y"] not in sidecar.calls


async def test_a_failed_call_is_told_to_all_who_shared_it_and_to_nobody_else() -> None:
    sidecar = Sidecar()
    batcher, first = await crowded(sidecar)
    waiting = await begun(batcher, "a", "b")
    await answer(sidecar, 0)
    await answer(sidecar, len(sidecar.calls) - 1, Unsure("lost"))
    for task in waiting:
        with pytest.raises(Unsure):
            await task
    (later,) = await begun(batcher, "c")
    await finish(sidecar)
    await asyncio.gather(*first, later)


async def test_who_gives_up_does_not_hold_up_the_others() -> None:
    sidecar = Sidecar()
    batcher, first = await crowded(sidecar)
    waiting = await begun(batcher, "a", "b")
    waiting[0].cancel()
    await finish(sidecar)
    await asyncio.gather(*first, waiting[1])
    assert waiting[0].cancelled()


async def test_a_refusal_for_good_is_told_to_the_one_it_is_about() -> None:
    sidecar = Sidecar()
    batcher, first = await crowded(sidecar)
    waiting = await begun(batcher, "a", "b")
    await answer(sidecar, 0)
    await answer(sidecar, len(sidecar.calls) - 1, Invalid("too_large", "one of them is too large"))
    assert sidecar.calls[-1] == ["a"]
    await answer(sidecar, len(sidecar.calls) - 1, Invalid("too_large", "a is too large"))
    with pytest.raises(Invalid, match="a is too large"):
        await waiting[0]
    await finish(sidecar)
    await asyncio.gather(*first, waiting[1])
