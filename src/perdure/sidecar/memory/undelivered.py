"""The messages that an in-memory bus took and has not brought yet."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import orjson

from perdure.sidecar.ports import Envelope, StateStore


class Undelivered:
    """Kept in memory, and in one row of `journal` when there is one; the queue of one process is short."""

    def __init__(self, journal: StateStore | None, key: str) -> None:
        self._journal = journal
        self._key = key
        self._messages: list[Envelope] = []
        self._loaded = journal is None
        self._turn = asyncio.Lock()

    async def all(self) -> Sequence[Envelope]:
        """Oldest first."""
        async with self._turn:
            await self._load()
            return tuple(self._messages)

    async def add(self, message: Envelope) -> None:
        """Return once it is kept."""
        async with self._turn:
            await self._load()
            self._messages.append(message)
            await self._save()

    async def remove(self, message: Envelope) -> None:
        """It was brought, or given up."""
        async with self._turn:
            self._messages.remove(message)
            await self._save()

    async def _load(self) -> None:
        if self._journal is not None and not self._loaded:
            found = await self._journal.get(self._key)
            rows = orjson.loads(found.value) if found is not None else []
            self._messages = [Envelope(**row) for row in rows]
            self._loaded = True

    async def _save(self) -> None:
        if self._journal is not None:
            await self._journal.put(self._key, orjson.dumps(self._messages))
