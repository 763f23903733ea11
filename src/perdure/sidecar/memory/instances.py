"""The hosts of an in-memory engine, written down so that they outlive the process."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import orjson

from perdure.errors import Conflict
from perdure.sidecar.ports import HostStatus, StateStore
from perdure.types import JsonObject

OPEN_KEY = "engine/open"
TRIES = 100


class InstanceBook:
    """One row per instance, and one listing those still open (a store cannot list its keys)."""

    def __init__(self, store: StateStore) -> None:
        self._store = store
        # Hosts of one process take turns; compare-and-set is for a second process over the same store.
        self._turn = asyncio.Lock()

    async def open_instances(self) -> Mapping[str, JsonObject]:
        """Inputs of the instances that were not finished, by id."""
        found = await self._store.get(OPEN_KEY)
        names: list[str] = orjson.loads(found.value) if found is not None else []
        rows = await self._store.get_many([_key(name) for name in names])
        read = {name: orjson.loads(rows[_key(name)].value) for name in names if _key(name) in rows}
        return {name: row["input"] for name, row in read.items() if row["status"] == HostStatus.RUNNING}

    async def status(self, instance: str) -> HostStatus | None:
        found = await self._store.get(_key(instance))
        return HostStatus(orjson.loads(found.value)["status"]) if found is not None else None

    async def record(self, instance: str, input: JsonObject) -> None:
        """Listed first, so that a row written is always found again."""
        async with self._turn:
            await self._list(instance, present=True)
        await self._write(instance, HostStatus.RUNNING, input)

    async def renew(self, instance: str, input: JsonObject) -> None:
        """The instance starts over with `input`."""
        await self._write(instance, HostStatus.RUNNING, input)

    async def close(self, instance: str, status: HostStatus) -> None:
        """The instance ended."""
        await self._write(instance, status, {})
        async with self._turn:
            await self._list(instance, present=False)

    async def _write(self, instance: str, status: HostStatus, input: JsonObject) -> None:
        await self._store.put(_key(instance), orjson.dumps({"status": status.value, "input": input}))

    async def _list(self, instance: str, *, present: bool) -> None:
        for _ in range(TRIES):
            found = await self._store.get(OPEN_KEY)
            names: set[str] = set(orjson.loads(found.value)) if found is not None else set()
            if (instance in names) == present:
                return
            value = orjson.dumps(sorted(names | {instance} if present else names - {instance}))
            try:
                if found is None:
                    await self._store.create(OPEN_KEY, value)
                else:
                    await self._store.put(OPEN_KEY, value, etag=found.etag)
            except Conflict:
                continue
            return
        raise Conflict("engine_list_contended", f"the list of open hosts changed {TRIES} times in a row; repeat")


def _key(instance: str) -> str:
    return f"engine/instance/{instance}"
