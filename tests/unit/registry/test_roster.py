"""Who is there: dead agents disappear in bounded time, by the registry's own clock; living ones never do."""

from __future__ import annotations

import asyncio

import pytest

from perdure.agent.card import AgentCard
from perdure.agent.directory import BEAT_S, Directory
from perdure.agent.roster import TTL_S, Joined, Left, Roster
from perdure.errors import NotFound, Transient
from perdure.sidecar.memory import MemoryStateStore
from perdure.sidecar.memory.invoker import MemoryInvoker
from perdure.testing.clock import FakeClock


def card(name: str, **more: str) -> AgentCard:
    return AgentCard(name=name, app_id=f"app-{name}", capabilities=("sensors", name), **more)


async def names(roster: Roster) -> list[str]:
    return [each.name for each in await roster.agents()]


async def test_a_registered_agent_is_listed_found_by_capability_and_resolved() -> None:
    roster = Roster(MemoryStateStore(), FakeClock())
    await roster.register(card("weather"), "i1")
    await roster.register(card("news"), "i1")
    assert await names(roster) == ["news", "weather"]
    assert [each.name for each in await roster.agents("weather")] == ["weather"]
    assert (await roster.agent("weather")).app_id == "app-weather"


async def test_an_unknown_agent_is_told_with_those_that_are_there() -> None:
    roster = Roster(MemoryStateStore(), FakeClock())
    await roster.register(card("weather"), "i1")
    with pytest.raises(NotFound) as told:
        await roster.agent("wether")
    assert told.value.message == "agent 'wether' is unknown; registered: weather"


async def test_an_agent_without_heartbeats_is_gone_after_the_time_to_live_and_one_with_them_stays() -> None:
    clock = FakeClock()
    roster = Roster(MemoryStateStore(), clock)
    await roster.register(card("dead"), "i1")
    await roster.register(card("living"), "i1")
    for _ in range(4):
        await clock.advance(TTL_S / 3)
        await roster.beat("living", "i1")
        listed = await names(roster)
    assert listed == ["living"]
    with pytest.raises(NotFound):
        await roster.beat("dead", "i1")


async def test_a_registry_that_restarts_judges_by_what_it_sees_itself() -> None:
    store, clock = MemoryStateStore(), FakeClock()
    before = Roster(store, clock)
    await before.register(card("dead"), "i1")
    await clock.advance(TTL_S - 1)
    later = FakeClock()  # another machine: its monotonic clock begins anew
    after = Roster(store, later)
    assert await names(after) == ["dead"]
    await later.advance(TTL_S)
    assert await names(after) == []
    assert await names(before) == []  # gone from the store, so from every registry


async def test_an_agent_lives_as_long_as_one_of_its_instances() -> None:
    clock = FakeClock()
    roster = Roster(MemoryStateStore(), clock)
    await roster.register(card("twice"), "i1")
    await roster.register(card("twice"), "i2")
    await roster.leave("twice", "i1")
    assert await names(roster) == ["twice"]
    await roster.leave("twice", "i2")
    assert await names(roster) == []
    await roster.leave("twice", "i2")


async def test_an_agent_that_comes_back_is_listed_again() -> None:
    clock = FakeClock()
    roster = Roster(MemoryStateStore(), clock)
    await roster.register(card("a"), "i1")
    await roster.refresh()
    await clock.advance(TTL_S)
    assert await names(roster) == []
    await roster.register(card("a"), "i2")
    assert await names(roster) == ["a"]


async def test_who_watches_sees_who_is_there_then_who_comes_changes_and_goes() -> None:
    roster = Roster(MemoryStateStore(), FakeClock())
    await roster.register(card("a"), "i1")
    watching = roster.watch()
    seen = [(await anext(watching))[2]]
    await roster.register(card("b"), "i1")
    seen.append((await anext(watching))[2])
    await roster.register(card("b", role="new"), "i1")
    seen.append((await anext(watching))[2])
    await roster.leave("a", "i1")
    seen.append((await anext(watching))[2])
    assert [(e.t, e.agent["name"] if isinstance(e, Joined) else e.name) for e in seen] == [
        ("joined", "a"),
        ("joined", "b"),
        ("joined", "b"),
        ("left", "a"),
    ]
    assert isinstance(seen[-1], Left)


async def test_concurrent_registrations_at_two_registries_lose_nobody() -> None:
    store = MemoryStateStore()
    rosters = [Roster(store, FakeClock()) for _ in range(2)]
    await asyncio.gather(*(rosters[i % 2].register(card(f"a{i}"), "i") for i in range(20)))
    assert len(await names(rosters[0])) == 20


async def test_an_agent_starts_and_works_while_the_registry_is_away() -> None:
    clock = FakeClock()
    directory = Directory(MemoryInvoker())
    async with directory.announcing(card("a"), "i1", clock):
        await clock.advance(3 * BEAT_S)
    with pytest.raises(Transient) as told:
        await directory.resolve("a")
    assert told.value.code == "registry_away"
