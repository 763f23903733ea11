"""A state store in this process."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

from perdure.errors import Conflict
from perdure.sidecar.ports import Item


class MemoryStateStore:
    """A dict with integer etags. Each call gives way to the loop once, then acts without a break."""

    def __init__(self, name: str = "memory") -> None:
        self.name = name
        self._items: dict[str, Item] = {}
        # One counter for all keys: a key deleted and created again never gets an old etag back.
        self._version = 0

    async def get(self, key: str) -> Item | None:
        await asyncio.sleep(0)
        return self._items.get(key)

    async def get_many(self, keys: Sequence[str]) -> Mapping[str, Item]:
        await asyncio.sleep(0)
        return {key: self._items[key] for key in keys if key in self._items}

    async def create(self, key: str, value: bytes) -> None:
        await asyncio.sleep(0)
        found = self._items.get(key)
        if found is None:
            self._write(key, value)
        elif found.value != value:
            raise Conflict("key_taken", f"{key!r} in {self.name!r} is taken; read on", key=key)

    async def put(self, key: str, value: bytes, *, etag: str | None = None) -> None:
        await asyncio.sleep(0)
        found = self._items.get(key)
        if etag is not None and (found is None or found.etag != etag):
            raise self._stale(key)
        self._write(key, value)

    async def delete(self, key: str, *, etag: str | None = None) -> None:
        await asyncio.sleep(0)
        found = self._items.get(key)
        if found is not None and etag is not None and found.etag != etag:
            raise self._stale(key)
        self._items.pop(key, None)

    async def check(self) -> None:
        await asyncio.sleep(0)

    def _write(self, key: str, value: bytes) -> None:
        self._version += 1
        self._items[key] = Item(bytes(value), str(self._version))

    def _stale(self, key: str) -> Conflict:
        return Conflict("etag_stale", f"{key!r} in {self.name!r} was changed; reload it", key=key)
