"""Who is there: cards and heartbeats in a shared store. What has shown no life for a while is gone.

A heartbeat makes a counter grow. Whether an agent lives is judged by each registry for itself, by how long it has
seen the counter stand still on its own monotonic clock: clocks of two machines are never compared.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from pydantic import TypeAdapter

from perdure.agent.card import AgentCard
from perdure.clock import Clock
from perdure.errors import NotFound
from perdure.sidecar.ports import StateStore
from perdure.state.document import Document
from perdure.types import JsonObject

TTL_S = 16.0
"""Three heartbeats: one may be lost, one may be late."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One agent: its card, and a counter for each instance that serves it."""

    card: AgentCard | None = None
    beats: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Joined:
    """The agent is there, or its card has changed."""

    agent: JsonObject
    t: Literal["joined"] = "joined"


@dataclass(frozen=True, slots=True)
class Left:
    """The agent is gone."""

    name: str
    t: Literal["left"] = "left"


@dataclass(frozen=True, slots=True)
class _Seen:
    beats: int
    since: float


_ENTRY: TypeAdapter[Entry] = TypeAdapter(Entry)
_NAMES: TypeAdapter[tuple[str, ...]] = TypeAdapter(tuple[str, ...])


class Roster:
    """The registry's logic. Several may work on one store."""

    def __init__(self, store: StateStore, clock: Clock, *, ttl_s: float = TTL_S, prefix: str = "") -> None:
        self._store = store
        self._clock = clock
        self._ttl_s = ttl_s
        self._root = f"{prefix}registry"
        self._index: Document[tuple[str, ...]] = Document(store, f"{self._root}/index", _NAMES, ())
        self._seen: dict[tuple[str, str], _Seen] = {}
        self._cards: Mapping[str, AgentCard] = {}
        self._version = 0
        self._changed = asyncio.Event()

    async def register(self, card: AgentCard, instance: str) -> None:
        """Make the agent known, or its newer card; counts as a heartbeat of `instance`."""
        await self._entry(card.name).update(
            lambda entry: Entry(card, {**entry.beats, instance: entry.beats.get(instance, 0) + 1})
        )
        await self._listed(card.name)
        await self.refresh()

    async def beat(self, name: str, instance: str) -> None:
        """Say that `instance` lives. Raises: NotFound (`agent_unknown`): register again."""
        entry = (await self._entry(name).load()).value
        if entry.card is None or instance not in entry.beats:
            raise _unknown(name, self._cards)
        await self._entry(name).update(lambda entry: replace(entry, beats=_counted(entry.beats, instance)))
        await self._listed(name)

    async def leave(self, name: str, instance: str) -> None:
        """Take `instance` off; the agent is gone with its last one. Unknown is fine."""
        await self._remove(name, instance, None)
        await self.refresh()

    async def agents(self, capability: str = "") -> list[AgentCard]:
        """The cards of all that live, by name; with `capability` only those that have it."""
        cards = await self.refresh()
        return [card for _, card in sorted(cards.items()) if not capability or capability in card.capabilities]

    async def agent(self, name: str) -> AgentCard:
        """The card of `name`. Raises: NotFound (`agent_unknown`)."""
        cards = await self.refresh()
        if name not in cards:
            raise _unknown(name, cards)
        return cards[name]

    async def refresh(self) -> Mapping[str, AgentCard]:
        """Look at the store: note who has shown life, drop who has not for too long, tell those who watch."""
        names = (await self._index.load()).value
        items = await self._store.get_many([self._key(name) for name in names])
        cards: dict[str, AgentCard] = {}
        known: set[tuple[str, str]] = set()
        for name in names:
            item = items.get(self._key(name))
            entry = _ENTRY.validate_json(item.value) if item else Entry()
            known |= {(name, instance) for instance in entry.beats}
            if await self._alive(name, entry) and entry.card is not None:
                cards[name] = entry.card
        self._seen = {place: seen for place, seen in self._seen.items() if place in known}
        self._tell(cards)
        return cards

    async def watch(self) -> AsyncIterator[tuple[int, int, Joined | Left]]:
        """Who is there, then who comes, changes and goes, for ever; numbered by version and index."""
        shown: Mapping[str, AgentCard] = {}
        await self.refresh()
        while True:
            changed, version, cards = self._changed, self._version, self._cards
            news: list[Joined | Left] = [
                Joined(card.model_dump(mode="json")) for name, card in cards.items() if shown.get(name) != card
            ]
            news += [Left(name) for name in shown if name not in cards]
            shown = cards
            for i, one in enumerate(news):
                yield version, i, one
            await changed.wait()

    async def _alive(self, name: str, entry: Entry) -> bool:
        """Whether an instance has shown life lately; those that have not are taken off."""
        now = self._clock.monotonic()
        living = False
        for instance, beats in entry.beats.items():
            seen = self._seen.get((name, instance))
            if seen is None or seen.beats != beats:
                seen = self._seen[name, instance] = _Seen(beats, now)
            if now - seen.since < self._ttl_s:
                living = True
            else:
                await self._remove(name, instance, beats)
        if not entry.beats:
            await self._unlisted(name)
        return living

    async def _remove(self, name: str, instance: str, beats: int | None) -> None:
        """Take the instance off, unless it has shown life since its counter was `beats`."""

        def without(entry: Entry) -> Entry:
            if instance not in entry.beats or (beats is not None and entry.beats[instance] != beats):
                return entry
            return replace(entry, beats={key: value for key, value in entry.beats.items() if key != instance})

        left = await self._entry(name).update(without) if name in (await self._index.load()).value else Entry()
        if not left.beats:
            await self._unlisted(name)

    async def _listed(self, name: str) -> None:
        await self._index.update(lambda names: names if name in names else tuple(sorted({*names, name})))

    async def _unlisted(self, name: str) -> None:
        # A heartbeat that comes at this moment puts the name back, at the latest the next one does.
        await self._index.update(lambda names: tuple(n for n in names if n != name) if name in names else names)

    def _tell(self, cards: Mapping[str, AgentCard]) -> None:
        if cards == self._cards:
            return
        self._cards = cards
        self._version += 1
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    def _entry(self, name: str) -> Document[Entry]:
        return Document(self._store, self._key(name), _ENTRY, Entry())

    def _key(self, name: str) -> str:
        return f"{self._root}/agents/{name}"


def _counted(beats: Mapping[str, int], instance: str) -> dict[str, int]:
    return {**beats, instance: beats.get(instance, 0) + 1}


def _unknown(name: str, cards: Mapping[str, AgentCard]) -> NotFound:
    known = ", ".join(sorted(cards)) or "none"
    return NotFound("agent_unknown", f"agent {name!r} is unknown; registered: {known}", agent=name)
